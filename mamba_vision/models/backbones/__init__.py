from mamba_vision.models.backbones.rsmamba import RSMamba
from mamba_vision.models.backbones.vim import Vim
from mamba_vision.models.backbones.vmamba import VMamba

__all__ = ["RSMamba", "VMamba", "Vim"]
