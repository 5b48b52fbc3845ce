from mamba_vision.models.losses.deep_supervision import DeepSupervisionLoss
from mamba_vision.models.losses.dice_ce import DiceCELoss

__all__ = ["DeepSupervisionLoss", "DiceCELoss"]
