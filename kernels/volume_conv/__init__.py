"""The convolution of side 3 over volumes, channels-last in half precision."""

from mamba_vision.kernels.volume_conv.op import volume_conv

__all__ = ["volume_conv"]
