"""The scan of Mamba-2."""

from mamba_vision.kernels.ssd.op import ssd

__all__ = ["ssd"]
