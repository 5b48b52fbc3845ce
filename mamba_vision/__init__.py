"""Mamba vision systems on the MMEngine ecosystem: scan orders, GPU scan kernels, backbones, networks, volume pipeline."""

from mamba_vision.version import __version__

__all__ = ["__version__"]
