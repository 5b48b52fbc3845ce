"""The convolution kernels of S4 and S4D as modules, with the parameter names of the published ones.

Legend: H features, C channels (kernels a feature), S independent copies of (A, B, P) which serve feature h as copy
h mod S, N states of which N / 2 are stored, R rank. Complex parameters are stored as real ones with a last axis of two.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels.s4 import (
    dense_system,
    diagonal_kernel,
    discretize_diagonal,
    lengthen_output,
    low_rank_kernel,
    truncate_output,
)
from mamba_vision.models.mixers.hippo import MEASURES, diagonal, diagonal_plus_low_rank

TRANSFORMS = {
    "none": (lambda x: x, lambda x: x),
    "exp": (torch.exp, torch.log),
    "relu": (lambda x: F.relu(x) + 1e-4, lambda x: x),
    "sigmoid": (torch.sigmoid, torch.logit),
    "softplus": (F.softplus, lambda x: torch.log(torch.expm1(x))),
}


class SSMKernelDiag(nn.Module):
    """S4D's kernel (arXiv 2206.11893): a diagonal state matrix.

    Args:
        d_model: H.
        channels: C.
        l_max: the longest kernel that is asked for; None: any.
        d_state: N.
        dt_min, dt_max: the step sizes start log-uniform in here.
        dt_tie: one step size a feature instead of one a state.
        dt_transform, real_transform, imag_transform: 'exp', 'relu' (+ 1e-4), 'sigmoid', 'softplus' or 'none', by which
            parameters become step sizes and the negative real and imaginary parts of A.
        n_ssm: S; None: H.
        init: 'diag-lin', 'diag-inv', 'diag-inv2', 'diag-quad', 'diag-real', 'diag-legs', or 'legs', the same as that.
        disc: 'zoh' or 'bilinear'.
        lr, wd: learning rate and weight decay that the authors ask for, kept as `_optim` on the parameters.
        backend, verbose: accepted because published code passes them.

    Raises:
        ValueError: a name is unknown, or the copies do not divide the features.
    """

    def __init__(
        self,
        d_model: int,
        channels: int = 1,
        l_max: int | None = None,
        d_state: int = 64,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_tie: bool = True,
        dt_transform: str = "exp",
        n_ssm: int | None = None,
        init: str = "diag-legs",
        disc: str = "zoh",
        real_transform: str = "exp",
        imag_transform: str = "none",
        lr: float | None = None,
        wd: float = 0.0,
        backend: str = "naive",
        verbose: bool = True,
    ) -> None:
        super().__init__()
        copies = d_model if n_ssm is None else n_ssm
        if copies < 1 or d_model % copies:
            raise ValueError(f"n_ssm: found {n_ssm}, expected a divisor of the {d_model} features")
        if disc not in ("zoh", "bilinear"):
            raise ValueError(f"disc: found {disc!r}, expected 'zoh' or 'bilinear'")
        names = {"dt_transform": dt_transform, "real_transform": real_transform, "imag_transform": imag_transform}
        for name, value in names.items():
            if value not in TRANSFORMS:
                raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(map(repr, TRANSFORMS))}")
        self.d_model, self.channels, self.l_max, self.d_state, self.copies = d_model, channels, l_max, d_state, copies
        self.init, self.disc, self.transforms = init, disc, names

        steps = torch.rand(d_model, 1 if dt_tie else d_state // 2)
        steps = (steps * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min)).exp()
        A, B = self._start()
        C = torch.randn(channels, d_model, d_state // 2, dtype=torch.cfloat)
        self.inv_dt = nn.Parameter(_inverse(steps, dt_transform))
        self.A_real = nn.Parameter(_inverse(-A.real.float(), real_transform).repeat(copies, 1))
        self.A_imag = nn.Parameter(_inverse(-A.imag.float(), imag_transform, clamp=False).repeat(copies, 1))
        self.B = nn.Parameter(torch.view_as_real(B.to(torch.cfloat).expand(1, copies, -1).contiguous()))
        self.C = nn.Parameter(torch.view_as_real(C))
        self._hint = {"weight_decay": wd} if lr is None else {"weight_decay": wd, "lr": lr}
        self._mark("inv_dt", "A_real", "A_imag", "B")

    def _start(self) -> tuple[Tensor, Tensor]:
        return diagonal(self.init.removeprefix("diag-"), self.d_state)

    def _mark(self, *names: str) -> None:
        for name in names:
            parameter = getattr(self, name)
            parameter._optim = dict(self._hint)
            parameter._no_weight_decay = True

    def extra_repr(self) -> str:
        return f"{self.d_model}, channels={self.channels}, d_state={self.d_state}, init={self.init}"

    def forward(self, length: int | None = None, rate: float = 1.0) -> Tensor:
        """The kernel (C, H, length), real.

        Args:
            length: taps; `l_max` by default.
            rate: sampling rate relative to the one trained at.
        """
        length = self._length(length, rate)
        A, B, C, dt = self._values(rate)
        decay, factor = discretize_diagonal(A, dt, self.disc)
        return diagonal_kernel(decay, C * B * factor, length)

    def system(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Ā (H, N/2), B̄ (H, N/2) and 2 C (C, H, N/2) for a step: h <- Ā h + B̄ u, y = Re(2 C h)."""
        A, B, C, dt = self._values(rate)
        decay, factor = discretize_diagonal(A, dt, self.disc)
        return torch.exp(decay), B[0] * factor, 2 * C

    def _length(self, length: int | None, rate: float) -> int:
        if length is None and self.l_max is None:
            raise ValueError("length: found None, expected the taps, as the kernel was built without l_max")
        return round(self.l_max / rate) if length is None else length

    def _values(self, rate: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A (H, N/2), B (1, H, N/2), C (C, H, N/2) complex and dt (H, 1 or N/2)."""
        real = TRANSFORMS[self.transforms["real_transform"]][0](self.A_real)
        imaginary = TRANSFORMS[self.transforms["imag_transform"]][0](self.A_imag)
        dt = TRANSFORMS[self.transforms["dt_transform"]][0](self.inv_dt) * rate
        tiles = self.d_model // self.copies
        A = torch.complex(-real, -imaginary).repeat(tiles, 1)
        return A, torch.view_as_complex(self.B).repeat(1, tiles, 1), torch.view_as_complex(self.C), dt


class SSMKernelDPLR(SSMKernelDiag):
    """S4's kernel (arXiv 2111.00396): a state matrix that is diagonal plus low rank, discretized bilinearly.

    `C` holds C (1 - Ā^l_kernel) once the buffer `l_kernel` is set. On a new model that happens when the first kernel is
    asked for, for the length l_max; where a longer one is asked for, l_kernel doubles until it is enough. Both change
    `C` in place.

    Args:
        rank: R.
        init: 'legs', 'legt' or 'fourier'.
        others: of `SSMKernelDiag`; no `disc`.

    Raises:
        ValueError: an unknown `init`, or options that this kernel does not have.
    """

    def __init__(self, d_model: int, *args, rank: int = 1, init: str = "legs", **options) -> None:
        if init not in MEASURES:
            raise ValueError(f"init: found {init!r}, expected one of {', '.join(map(repr, MEASURES))}")
        if "disc" in options:
            raise ValueError(f"disc: found {options['disc']!r}, expected none: this kernel is bilinear")
        if not options.get("dt_tie", True):
            raise ValueError("dt_tie: found False, expected True: the states of a feature share a step size here")
        self.rank = rank
        super().__init__(d_model, *args, init=init, disc="bilinear", **options)
        P = diagonal_plus_low_rank(init, self.d_state, rank)[2].to(torch.cfloat)
        self.P = nn.Parameter(torch.view_as_real(P[:, None].repeat(1, self.copies, 1)))
        self._mark("P")
        self.register_buffer("l_kernel", torch.tensor(0))

    def _start(self) -> tuple[Tensor, Tensor]:
        return diagonal_plus_low_rank(self.init, self.d_state, self.rank)[:2]

    def forward(self, length: int | None = None, rate: float = 1.0) -> Tensor:
        if length is None and int(self.l_kernel):
            length = round(int(self.l_kernel) / rate)
        length = self._length(length, rate)
        self._reach(round(rate * length))
        A, B, C, dt = self._values(rate)
        whole = round(int(self.l_kernel) / rate)
        return low_rank_kernel(A, B, C, self._low_rank(), dt, whole)[..., :length]

    def system(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Ā (H, N, N), B̄ (H, N) and C (C, H, N) for a step: h <- Ā h + B̄ u, y = Re(C h)."""
        A, B, C, dt = self._values(rate)
        return dense_system(A, B, C, self._low_rank(), dt, round(int(self.l_kernel) / rate))

    def _low_rank(self) -> Tensor:
        return torch.view_as_complex(self.P).repeat(1, self.d_model // self.copies, 1)

    @torch.no_grad()
    def _reach(self, length: int) -> None:
        """Bring C and l_kernel to at least this length."""
        if int(self.l_kernel) == 0:
            first = self.l_max or length
            self._replace(truncate_output, first)
            self.l_kernel.fill_(first)
        while int(self.l_kernel) < length:
            self._replace(lengthen_output, int(self.l_kernel))
            self.l_kernel.mul_(2)

    def _replace(self, change, length: int) -> None:
        A, _, C, dt = self._values(1.0)
        self.C.copy_(torch.view_as_real(change(C, A, self._low_rank(), dt, length).resolve_conj()))


def _inverse(values: Tensor, transform: str, clamp: bool = True) -> Tensor:
    return TRANSFORMS[transform][1](values.clamp_min(1e-4) if clamp or transform != "none" else values)
