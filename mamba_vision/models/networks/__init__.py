from mamba_vision.models.networks.fusionmamba import FusionMamba
from mamba_vision.models.networks.lightm_unet import LightMUNet
from mamba_vision.models.networks.mambadfuse import MambaDFuse
from mamba_vision.models.networks.mambair import MambaIR
from mamba_vision.models.networks.mambair_unet import MambaIRUNet
from mamba_vision.models.networks.mambairv2 import MambaIRv2
from mamba_vision.models.networks.monai_unet import MonaiUNet
from mamba_vision.models.networks.plain_unet import PlainUNet
from mamba_vision.models.networks.promamba import ProMamba
from mamba_vision.models.networks.segmamba import SegMamba
from mamba_vision.models.networks.umamba import UMamba
from mamba_vision.models.networks.zigma import ZigMa

__all__ = [
    "FusionMamba",
    "LightMUNet",
    "MambaDFuse",
    "MambaIR",
    "MambaIRUNet",
    "MambaIRv2",
    "MonaiUNet",
    "PlainUNet",
    "ProMamba",
    "SegMamba",
    "UMamba",
    "ZigMa",
]
