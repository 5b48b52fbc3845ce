from mamba_vision.models.backbones.local_vim import LocalVim
from mamba_vision.models.backbones.local_vmamba import LocalVMamba
from mamba_vision.models.backbones.rsmamba import RSMamba
from mamba_vision.models.backbones.vim import Vim
from mamba_vision.models.backbones.vmamba import VMamba

__all__ = ["LocalVMamba", "LocalVim", "RSMamba", "VMamba", "Vim"]
