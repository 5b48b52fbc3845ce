"""Where the Triton kernel is faster than cuDNN: measurements, as data.

Milliseconds of cuDNN and of the kernel, one H200, bfloat16, channels-last, batch 2:

    channels in-out at side    cuDNN   Triton
    48-48 at 128               3.73    2.20
    96-48 at 128               4.86    4.09
    96-96 at 64                0.857   0.724
    48-96 at 64                0.707   0.390
    192-96 at 64               0.883   1.065

At 48 and 96 channels cuDNN takes kernels of the GPU before with tiles of 32 channels; it serves multiples of 64 well.
Pairs that were not measured stay with it, and so do other GPUs and volumes of less than a few rounds of programs.
"""

from functools import cache

import torch

FORWARD = frozenset({(48, 48), (96, 48), (48, 96), (96, 96)})  # channels in and out
DATA_GRADIENT = FORWARD  # channels in and out of the convolution; the kernel then runs from `out` to `in`
LEAST_VOXELS = 2**17
GPU = 9  # major compute capability: Hopper


def forward_pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the kernel is the faster one for this convolution, on a GPU that it was measured on."""
    if x.dtype not in (torch.float16, torch.bfloat16) or weight.dtype != x.dtype:
        return False
    if (x.shape[1], weight.shape[0]) not in FORWARD or x.numel() < LEAST_VOXELS * x.shape[1]:
        return False
    return x.is_contiguous(memory_format=torch.channels_last_3d)


def gradient_pays(weight: torch.Tensor) -> bool:
    """Whether it is for the gradient of the input, of a convolution that it has computed."""
    return (weight.shape[1], weight.shape[0]) in DATA_GRADIENT


@cache
def measured_on(device: torch.device) -> bool:
    """Whether these measurements hold on that GPU; compilers, which cannot ask, leave that to the operator."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_properties(device).major == GPU
