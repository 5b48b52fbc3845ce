from mamba_vision.models.losses.adversarial import PerceptualLoss, UNetDiscriminator
from mamba_vision.models.losses.deep_supervision import DeepSupervisionLoss
from mamba_vision.models.losses.dice_ce import DiceCELoss
from mamba_vision.models.losses.fusion_sharpening import SharpeningLoss
from mamba_vision.models.losses.fusion_sources import FusionLoss
from mamba_vision.models.losses.pixel import PixelLoss

__all__ = [
    "DeepSupervisionLoss",
    "DiceCELoss",
    "FusionLoss",
    "PerceptualLoss",
    "PixelLoss",
    "SharpeningLoss",
    "UNetDiscriminator",
]
