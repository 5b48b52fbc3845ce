from mamba_vision.models.mixers.bidirectional import BidirectionalMamba
from mamba_vision.models.mixers.mamba import Mamba
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.models.mixers.shared_paths import SharedPathsMamba
from mamba_vision.models.mixers.ss2d import SS2D, CascadeSS2D
from mamba_vision.models.mixers.ssd2d import SSD2D
from mamba_vision.models.mixers.tri_oriented import TriOrientedMamba

__all__ = [
    "SS2D",
    "SSD2D",
    "BidirectionalMamba",
    "CascadeSS2D",
    "Mamba",
    "ScanInputs",
    "SharedPathsMamba",
    "TriOrientedMamba",
]
