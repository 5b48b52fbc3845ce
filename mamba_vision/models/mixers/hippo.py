"""State matrices that remember: HiPPO (Gu et al., arXiv 2008.07669; Gu et al., arXiv 2206.12037) and the
diagonal ones of S4D (arXiv 2206.11893, section 4).

Everything is float64 and complex128. Eigenvectors have arbitrary phases, so B and P in their basis differ between
machines: a trained model's come from its checkpoint.
"""

import math
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

MEASURES = ("legs", "legt", "fourier")
DIAGONALS = ("lin", "inv", "inv2", "quad", "legs", "real")


def _computed_on_cpu(function: Callable) -> Callable:
    """Its tensors, handed to the default device: a GPU rounds otherwise, and what nearly cancels shows it."""

    @wraps(function)
    def call(*arguments, **options):
        device = torch.get_default_device()
        with torch.device("cpu"):
            found = function(*arguments, **options)
        return tuple(t.to(device) for t in found) if isinstance(found, tuple) else found.to(device)

    return call


@_computed_on_cpu
def transition(measure: str, states: int) -> tuple[Tensor, Tensor]:
    """A (states, states) and B (states,) of dx/dt = A x + B u.

    Args:
        measure: 'legs' (scaled Legendre), 'legt' (Legendre over a window) or 'fourier' (Fourier over a window).

    Raises:
        ValueError: another measure, or no positive even number of states.
    """
    _check("measure", measure, MEASURES, states)
    n = torch.arange(states, dtype=torch.float64)
    row, column = n[:, None], n[None, :]
    if measure == "legs":
        below = torch.where(row > column, -torch.outer(_root(2 * n + 1), _root(2 * n + 1)), 0.0)
        return below - torch.diag(n + 1), _root(2 * n + 1)
    if measure == "legt":
        scaled = _root(2 * n + 1) / math.sqrt(2)
        sign = torch.where(row < column, (-1.0) ** (row - column), 1.0)
        return -torch.outer(scaled, scaled) * sign, 0.5 * _root(2 * n + 1)
    frequencies = torch.stack([torch.zeros(states // 2), torch.arange(states // 2)], -1).double().flatten()[1:]
    B = torch.where(n % 2 == 0, math.sqrt(2) * torch.ones_like(n), 0.0)
    B[0] = 1
    turning = math.pi * (torch.diag(frequencies, -1) - torch.diag(frequencies, 1))
    return turning - B[:, None] * B[None, :], B


@_computed_on_cpu
def rank_correction(measure: str, states: int, rank: int = 1) -> Tensor:
    """P (rank, states) that makes A + P^T P skew-symmetric plus -1/2 ('legs') or nothing ('legt', 'fourier').

    Args:
        rank: 1 at least, 2 for 'legt'; what is more than needed is zero.

    Raises:
        ValueError: a rank too small, or as for `transition`.
    """
    _check("measure", measure, MEASURES, states)
    n = torch.arange(states, dtype=torch.float64)
    if measure == "legs":
        P = _root(n + 0.5)[None]
    elif measure == "legt":
        whole = (n + 0.5) / _root(n + 0.5)
        P = torch.stack([torch.where(n % 2 == 1, whole, 0.0), torch.where(n % 2 == 0, whole, 0.0)])
    else:
        P = transition(measure, states)[1][None]
    if rank < len(P):
        raise ValueError(f"rank: found {rank}, expected at least {len(P)} for {measure!r}")
    return torch.cat([P, P.new_zeros(rank - len(P), states)])


@_computed_on_cpu
def diagonal_plus_low_rank(
    measure: str, states: int, rank: int = 1, b_clip: float | None = 2.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The measure in the basis in which A + P^T P is diagonal, one of each conjugate pair.

    Args:
        b_clip: bound of B's imaginary part; None for none.

    Returns:
        The diagonal (states / 2,) with imaginary parts ascending to zero, B (states / 2,) and P (rank, states / 2).
    """
    A, B = transition(measure, states)
    P = rank_correction(measure, states, rank)
    # The published correction by 'fourier' is float32. There, and for 'legt', the real part is nothing but rounding,
    # which the recorded case holds too: the roots above are therefore taken without a vector library's last bit.
    square = (P.float()[:, :, None] * P.float()[:, None, :]) if measure == "fourier" else P[:, :, None] * P[:, None, :]
    normal = A + square.sum(0)
    imaginary, V = torch.linalg.eigh(-1j * normal)  # ascending
    V, imaginary = V[:, : states // 2], imaginary[: states // 2]
    if abs(imaginary[-1]) < 1e-4:  # a zero stands alone in its half: its vector is fixed by hand
        V[:, -1] = 0
        V[0, -1], V[1, -1] = 1 / math.sqrt(2), 1j / math.sqrt(2)
    W = torch.complex(torch.diagonal(normal).mean().expand(states // 2), imaginary)
    B, P = (M.to(V.dtype) @ V.conj() for M in (B, P))
    if b_clip is not None:
        B = torch.complex(B.real, B.imag.clamp(-b_clip, b_clip))
    return W, B, P


@_computed_on_cpu
def diagonal(init: str, states: int) -> tuple[Tensor, Tensor]:
    """Diagonal (states / 2,) and B (states / 2,) of S4D's starts.

    Args:
        init: 'lin', 'inv', 'inv2', 'quad', 'legs' or 'real'.

    Raises:
        ValueError: another name, or no positive even number of states.
    """
    _check("init", init, DIAGONALS, states)
    n = torch.arange(states // 2, dtype=torch.float64)
    if init == "legs":
        W, B, _ = diagonal_plus_low_rank("legs", states)
        return W, B
    frequency = {
        "lin": math.pi * n,
        "inv": states / math.pi * (states / (2 * n + 1) - 1),
        "inv2": states / math.pi * (states / (n + 1) - 1),
        "quad": (1 + 2 * n) ** 2 / math.pi,
        "real": torch.zeros_like(n),
    }[init]
    decay = -(n + 1) if init == "real" else torch.full_like(n, -0.5)
    return torch.complex(decay, -frequency), torch.ones_like(n).to(torch.complex128)


def _root(values: Tensor) -> Tensor:
    """The square roots, correctly rounded on every machine."""
    return torch.tensor([math.sqrt(value) for value in values.tolist()], dtype=torch.float64)


def _check(name: str, found: str, known: tuple[str, ...], states: int) -> None:
    if found not in known:
        raise ValueError(f"{name}: found {found!r}, expected one of {', '.join(map(repr, known))}")
    if states < 2 or states % 2:
        raise ValueError(f"states: found {states}, expected a positive even number")
