"""Mamba vision systems on the MMEngine ecosystem: scan orders, GPU kernels, backbones, networks, volume pipeline."""

from mamba_vision.utils.lazy import lazy_names
from mamba_vision.version import __version__

__all__ = ["__version__", "cuda_graphed", "get_model", "list_models"]

__getattr__ = lazy_names(
    __name__,
    {
        "cuda_graphed": "mamba_vision.models.cuda_graphs",
        "get_model": "mamba_vision.apis.models",
        "list_models": "mamba_vision.apis.model_names",
    },
)
