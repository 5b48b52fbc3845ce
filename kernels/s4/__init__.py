"""State space models that do not depend on the input, as long convolutions (S4, S4D). Plain PyTorch on any device."""

from mamba_vision.kernels.s4.convolution import long_convolution
from mamba_vision.kernels.s4.diagonal import diagonal_kernel, discretize_diagonal
from mamba_vision.kernels.s4.low_rank import dense_system, lengthen_output, low_rank_kernel, truncate_output
from mamba_vision.kernels.s4.step import system_step

__all__ = [
    "dense_system",
    "diagonal_kernel",
    "discretize_diagonal",
    "lengthen_output",
    "long_convolution",
    "low_rank_kernel",
    "system_step",
    "truncate_output",
]
