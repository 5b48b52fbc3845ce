from mamba_vision.models.mixers.mamba import Mamba
from mamba_vision.models.mixers.scan_inputs import ScanInputs

__all__ = ["Mamba", "ScanInputs"]
