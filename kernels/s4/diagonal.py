"""Diagonal state matrices: S4D (Gu, Gupta, Goel and Ré, arXiv 2206.11893).

Half of each conjugate pair is stored, so a sum over the states n means twice its real part.
"""

import math

import torch


def discretize_diagonal(
    A: torch.Tensor, dt: torch.Tensor, discretization: str = "zoh"
) -> tuple[torch.Tensor, torch.Tensor]:
    """log(Ā) and the factor w with B̄ = w B: h_t = Ā h_{t-1} + B̄ u_t.

    Args:
        A: (features, states) complex.
        dt: (features, 1) or (features, states), positive.
        discretization: "zoh": Ā = exp(dt A), w = (Ā - 1) / A; "bilinear": Ā = (1 + dt A / 2) / (1 - dt A / 2),
            w = dt / (1 - dt A / 2).

    Raises:
        ValueError: another discretization.
    """
    step = dt * A
    if discretization == "zoh":
        return step, (torch.exp(step) - 1) / A
    if discretization == "bilinear":
        return torch.log((1 + step / 2) / (1 - step / 2)), dt / (1 - step / 2)
    raise ValueError(f"discretization is {discretization!r}, expected 'zoh' or 'bilinear'")


def diagonal_kernel(log_decay: torch.Tensor, weights: torch.Tensor, length: int) -> torch.Tensor:
    """K[c, h, l] = 2 Re sum_n weights[c, h, n] exp(l log_decay[h, n]), (channels, features, length), real.

    exp(l x) is taken apart at l = a m + b, so memory grows with the root of the length.

    Args:
        log_decay: (features, states) complex, log(Ā).
        weights: (channels, features, states) complex, the products C B̄.

    Raises:
        ValueError: `length` is below 1.
    """
    if length < 1:
        raise ValueError(f"length is {length}, expected at least 1")
    m = math.isqrt(length - 1) + 1
    x = log_decay.unsqueeze(-1)
    steps = torch.arange(m, device=x.device, dtype=x.real.dtype)
    coarse, fine = torch.exp(x * (m * steps[: -(-length // m)])), torch.exp(x * steps)
    rows = weights.unsqueeze(-1) * coarse  # (channels, features, states, a)
    kernel = torch.einsum("chna,hnb->chab", rows, fine)
    return 2 * kernel.real.flatten(-2)[..., :length]
