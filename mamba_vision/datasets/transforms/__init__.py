from mamba_vision.datasets.transforms.monai_transforms import MONAI_TRANSFORMS

__all__ = ["MONAI_TRANSFORMS"]
