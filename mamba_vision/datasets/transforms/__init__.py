from mamba_vision.datasets.transforms.cascade import RandPerturbClassesd
from mamba_vision.datasets.transforms.masking import MaskOutsided
from mamba_vision.datasets.transforms.monai_transforms import MONAI_TRANSFORMS

__all__ = ["MONAI_TRANSFORMS", "MaskOutsided", "RandPerturbClassesd"]
