"""Inference with exported models, without PyTorch: NumPy and ONNX Runtime; Pillow, nibabel and SciPy for files.

python -m mamba_vision.deploy --help
"""

from mamba_vision.utils.lazy import lazy_names

__all__ = [
    "Classifier",
    "Fuser",
    "ModelFile",
    "ModelFileError",
    "PictureSegmentor",
    "PromptSegmentor",
    "Restorer",
    "ScanSegmentor",
    "Sharpener",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Classifier": "mamba_vision.deploy.classify",
        "Fuser": "mamba_vision.deploy.restore",
        "ModelFile": "mamba_vision.deploy.model_file",
        "ModelFileError": "mamba_vision.deploy.model_file",
        "PictureSegmentor": "mamba_vision.deploy.segment",
        "PromptSegmentor": "mamba_vision.deploy.prompt",
        "Restorer": "mamba_vision.deploy.restore",
        "ScanSegmentor": "mamba_vision.deploy.scans",
        "Sharpener": "mamba_vision.deploy.restore",
    },
)
