from mamba_vision.models.networks.lightm_unet import LightMUNet
from mamba_vision.models.networks.segmamba import SegMamba
from mamba_vision.models.networks.umamba import UMamba
from mamba_vision.models.networks.zigma import ZigMa

__all__ = ["LightMUNet", "SegMamba", "UMamba", "ZigMa"]
