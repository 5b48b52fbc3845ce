from mamba_vision.models.networks.lightm_unet import LightMUNet
from mamba_vision.models.networks.segmamba import SegMamba
from mamba_vision.models.networks.umamba import UMamba

__all__ = ["LightMUNet", "SegMamba", "UMamba"]
