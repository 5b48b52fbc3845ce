from mamba_vision.models.mixers.bi_attention import BiAttention
from mamba_vision.models.mixers.bidirectional import BidirectionalMamba
from mamba_vision.models.mixers.direction_merge import DirectionMerge
from mamba_vision.models.mixers.fusion_ssm import FusionSSM
from mamba_vision.models.mixers.local_ss2d import LocalSS2D
from mamba_vision.models.mixers.mamba import Mamba
from mamba_vision.models.mixers.mamba2 import Mamba2, Mamba2Simple
from mamba_vision.models.mixers.multi_input import MultiInputMamba
from mamba_vision.models.mixers.multi_mamba import MultiMamba
from mamba_vision.models.mixers.s4 import S4D, S4Block
from mamba_vision.models.mixers.scan_inputs import ScanInputs
from mamba_vision.models.mixers.semantic_scan import SemanticScan
from mamba_vision.models.mixers.shared_paths import SharedPathsMamba
from mamba_vision.models.mixers.ss2d import SS2D, CascadeSS2D
from mamba_vision.models.mixers.ssd2d import SSD2D
from mamba_vision.models.mixers.tri_oriented import TriOrientedMamba

__all__ = [
    "S4D",
    "SS2D",
    "SSD2D",
    "BiAttention",
    "BidirectionalMamba",
    "CascadeSS2D",
    "DirectionMerge",
    "FusionSSM",
    "LocalSS2D",
    "Mamba",
    "Mamba2",
    "Mamba2Simple",
    "MultiInputMamba",
    "MultiMamba",
    "S4Block",
    "ScanInputs",
    "SemanticScan",
    "SharedPathsMamba",
    "TriOrientedMamba",
]
