"""MONAI's dictionary transforms under their own names, so that a config can list them.

Those for volumes that are in memory and prepared; reading, spacing and normalization belong to `mamba_vision.volumes`.
"""

from monai import transforms

from mamba_vision.registry import TRANSFORMS

MONAI_TRANSFORMS = (
    "CenterSpatialCropd",
    "Lambdad",
    "Rand3DElasticd",
    "RandAdjustContrastd",
    "RandAffined",
    "RandAxisFlipd",
    "RandBiasFieldd",
    "RandCoarseDropoutd",
    "RandCoarseShuffled",
    "RandFlipd",
    "RandGaussianNoised",
    "RandGaussianSharpend",
    "RandGaussianSmoothd",
    "RandGibbsNoised",
    "RandGridDistortiond",
    "RandHistogramShiftd",
    "RandKSpaceSpikeNoised",
    "RandRicianNoised",
    "RandRotate90d",
    "RandRotated",
    "RandScaleIntensityFixedMeand",
    "RandScaleIntensityd",
    "RandShiftIntensityd",
    "RandSimulateLowResolutiond",
    "RandSpatialCropd",
    "RandStdShiftIntensityd",
    "RandZoomd",
    "SpatialPadd",
)

for _name in MONAI_TRANSFORMS:
    TRANSFORMS.register_module(name=_name, module=getattr(transforms, _name))
