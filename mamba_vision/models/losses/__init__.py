from mamba_vision.models.losses.adversarial import PerceptualLoss, UNetDiscriminator
from mamba_vision.models.losses.deep_supervision import DeepSupervisionLoss
from mamba_vision.models.losses.dice_bce import DiceBCELoss
from mamba_vision.models.losses.dice_ce import DiceCELoss
from mamba_vision.models.losses.fusion_sharpening import SharpeningLoss
from mamba_vision.models.losses.fusion_sources import FusionLoss
from mamba_vision.models.losses.pixel import PixelLoss
from mamba_vision.models.losses.polyp_structure import StructureLoss

__all__ = [
    "DeepSupervisionLoss",
    "DiceBCELoss",
    "DiceCELoss",
    "FusionLoss",
    "PerceptualLoss",
    "PixelLoss",
    "SharpeningLoss",
    "StructureLoss",
    "UNetDiscriminator",
]
