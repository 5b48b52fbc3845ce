"""Convolution with a kernel as long as the sequence."""

import torch

from mamba_vision.kernels.operators import without_autocast


def long_convolution(u: torch.Tensor, kernel: torch.Tensor, backward: torch.Tensor | None = None) -> torch.Tensor:
    """y_t = sum_s kernel_s u_{t-s}, by Fourier transforms in at least float32.

    Args:
        u: (batch, features, length).
        kernel: (channels, features, taps), taps <= length.
        backward: the same for the other direction. As in the published S4, its tap s reaches s + 1 steps ahead: the
            step itself belongs to `kernel` alone.

    Returns:
        (batch, channels, features, length), float32 (float64 for a float64 u).
    """
    length, taps = u.shape[-1], kernel.shape[-1]
    size = length + taps
    with without_autocast(u):
        wide = u if u.dtype == torch.float64 else u.float()
        spectrum = torch.fft.rfft(kernel.to(wide.dtype), n=size)
        if backward is not None:
            # behind the end of the sequence stands what the circle brings round to before its start
            behind = torch.nn.functional.pad(backward.to(wide.dtype).flip(-1), (length, 0))
            spectrum = spectrum + torch.fft.rfft(behind, n=size)
        return torch.fft.irfft(torch.fft.rfft(wide, n=size).unsqueeze(1) * spectrum, n=size)[..., :length]
