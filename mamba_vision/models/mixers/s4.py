"""S4 (Gu, Goel and Ré, arXiv 2111.00396) and S4D (Gu, Gupta, Goel and Ré, arXiv 2206.11893) as layers: a convolution as
long as the sequence, skip, GELU, and a gated linear unit over the features.

Legend of the suffixes: B batch, H features, L length, C channels (kernels a feature), N states.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels.s4 import diagonal_kernel, discretize_diagonal, long_convolution, system_step
from mamba_vision.models.mixers.s4_kernels import SSMKernelDiag, SSMKernelDPLR
from mamba_vision.registry import MIXERS

KERNELS = {"dplr": SSMKernelDPLR, "diag": SSMKernelDiag}


class FFTConv(nn.Module):
    """Convolution with a state space model's kernel, skip, dropout and activation: (B, H, L) to (B, C * H, L).

    Args:
        d_model: H.
        l_max: longest kernel; a longer sequence is convolved with one of this length. None: as long as the sequence.
        channels: C.
        activation: 'gelu' or None.
        dropout: rate before the activation.
        mode: 'dplr' (S4) or 'diag' (S4D).
        bidirectional: a second kernel over the reversed sequence.
        kernel_options: of `SSMKernelDPLR` or `SSMKernelDiag`.

    Raises:
        ValueError: an unknown mode or activation.
    """

    def __init__(
        self,
        d_model: int,
        l_max: int | None = None,
        channels: int = 1,
        activation: str | None = "gelu",
        dropout: float = 0.0,
        mode: str = "dplr",
        bidirectional: bool = False,
        **kernel_options,
    ) -> None:
        super().__init__()
        if mode not in KERNELS:
            raise ValueError(f"mode: found {mode!r}, expected 'dplr' or 'diag'")
        if activation not in ("gelu", None):
            raise ValueError(f"activation: found {activation!r}, expected 'gelu' or None")
        self.l_max, self.channels, self.bidirectional, self.activation = l_max, channels, bidirectional, activation
        self.D = nn.Parameter(torch.randn(channels, d_model))
        total = channels * (2 if bidirectional else 1)
        self.kernel = KERNELS[mode](d_model, channels=total, l_max=l_max, **kernel_options)
        self.drop = nn.Dropout(dropout)

    def forward(self, u_BHL: Tensor, rate: float = 1.0) -> Tensor:
        length = u_BHL.shape[-1]
        taps = length if self.l_max is None else min(length, round(self.l_max / rate))
        kernels = self.kernel(taps, rate).chunk(2) if self.bidirectional else (self.kernel(taps, rate),)
        y_BCHL = long_convolution(u_BHL, *kernels)
        y_BCHL = y_BCHL + self.D.unsqueeze(-1) * u_BHL.unsqueeze(1)
        return self._finish(y_BCHL.to(u_BHL.dtype)).flatten(1, 2)

    def step(self, u_BH: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One more token (B, H) and the state behind those before, from `start_state`: (B, C * H) and the new state.

        Raises:
            ValueError: the layer reads sequences from both ends.
        """
        if self.bidirectional:
            raise ValueError("bidirectional: found True; a sequence read from both ends cannot be continued by a step")
        y_BCH, state = system_step(*self.kernel.system(), u_BH, state)
        y_BCH = y_BCH + self.D * u_BH.unsqueeze(1)
        return self._finish(y_BCH.to(u_BH.dtype)).flatten(1), state

    def start_state(self, batch: int) -> Tensor:
        """(B, H, N) or, for a diagonal kernel, (B, H, N / 2), complex zeros."""
        return torch.zeros_like(self.kernel.system()[1]).detach().expand(batch, -1, -1).clone()

    def _finish(self, y: Tensor) -> Tensor:
        y = self.drop(y)
        return y if self.activation is None else F.gelu(y)


@MIXERS.register_module()
class S4Block(nn.Module):
    """S4's layer, mode 'dplr', or S4D's, mode 'diag': `FFTConv` and a linear map with gate.

    Args:
        d_model: H.
        final_act: 'glu' or None: what follows the linear map.
        dropout: rate behind the convolution.
        transposed: tokens come as (B, H, L) instead of (B, L, H).
        layer_options: of `FFTConv`.

    Raises:
        ValueError: an unknown `final_act`, or what `FFTConv` refuses.
    """

    def __init__(
        self, d_model: int, final_act: str | None = "glu", dropout: float = 0.0, transposed: bool = True,
        **layer_options,
    ) -> None:  # fmt: skip
        super().__init__()
        if final_act not in ("glu", None):
            raise ValueError(f"final_act: found {final_act!r}, expected 'glu' or None")
        self.transposed = transposed
        self.layer = FFTConv(d_model, dropout=dropout, **layer_options)
        linear = nn.Linear(d_model * self.layer.channels, d_model * (2 if final_act else 1))
        self.output_linear = nn.Sequential(linear, *([nn.GLU(dim=-1)] if final_act else []))

    def forward(self, x: Tensor, rate: float = 1.0) -> Tensor:
        """(B, H, L), or (B, L, H) unless `transposed`, to the same."""
        y_BHL = self.layer(x if self.transposed else x.transpose(1, 2), rate)
        y_BLH = self.output_linear(y_BHL.transpose(1, 2))
        return y_BLH.transpose(1, 2) if self.transposed else y_BLH

    def step(self, u_BH: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One more token (B, H) from a state of `start_state`: (B, H) and the new state."""
        y_BH, state = self.layer.step(u_BH, state)
        return self.output_linear(y_BH), state

    def start_state(self, batch: int) -> Tensor:
        """The state before the first token."""
        return self.layer.start_state(batch)


class S4DKernel(nn.Module):
    """The kernel of the minimal `S4D`: zero-order hold, S4D-Lin's start. Here A_imag is the imaginary part itself.

    Raises:
        ValueError: an odd number of states.
    """

    def __init__(self, d_model: int, N: int = 64, dt_min: float = 0.001, dt_max: float = 0.1, lr: float | None = None):
        super().__init__()
        if N < 2 or N % 2:
            raise ValueError(f"d_state: found {N}, expected a positive even number")
        steps = torch.rand(d_model) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min)
        self.C = nn.Parameter(torch.view_as_real(torch.randn(d_model, N // 2, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(steps)
        self.log_A_real = nn.Parameter(torch.full((d_model, N // 2), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(N // 2).float().repeat(d_model, 1))
        for parameter in (self.log_dt, self.log_A_real, self.A_imag):
            parameter._optim = {"weight_decay": 0.0} if lr is None else {"weight_decay": 0.0, "lr": lr}
            parameter._no_weight_decay = True

    def forward(self, length: int) -> Tensor:
        """(H, length)."""
        A = torch.complex(-self.log_A_real.exp(), self.A_imag)
        decay, factor = discretize_diagonal(A, self.log_dt.exp().unsqueeze(-1))
        return diagonal_kernel(decay, torch.view_as_complex(self.C)[None] * factor, length)[0]


@MIXERS.register_module()
class S4D(nn.Module):
    """The minimal S4D layer: convolution, skip, GELU, dropout, 1 x 1 convolution with gate.

    Args:
        d_model: H.
        d_state: N.
        dropout: rate.
        transposed: tokens come as (B, H, L) instead of (B, L, H).
        kernel_options: dt_min, dt_max, lr of `S4DKernel`.
    """

    def __init__(
        self, d_model: int, d_state: int = 64, dropout: float = 0.0, transposed: bool = True, **kernel_options
    ) -> None:
        super().__init__()
        self.transposed = transposed
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = S4DKernel(d_model, N=d_state, **kernel_options)
        self.dropout = nn.Dropout(dropout)
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, kernel_size=1), nn.GLU(dim=-2))

    def forward(self, u: Tensor) -> Tensor:
        """(B, H, L), or (B, L, H) unless `transposed`, to the same."""
        u_BHL = u if self.transposed else u.transpose(1, 2)
        y_BHL = long_convolution(u_BHL, self.kernel(u_BHL.shape[-1])[None])[:, 0] + self.D.unsqueeze(-1) * u_BHL
        y_BHL = self.output_linear(self.dropout(F.gelu(y_BHL.to(u.dtype))))
        return y_BHL if self.transposed else y_BHL.transpose(1, 2)
