from mamba_vision.evaluation.frechet_distance import FrechetDistance
from mamba_vision.evaluation.fusion import FusionMetric
from mamba_vision.evaluation.fusion_scores import score_fusion
from mamba_vision.evaluation.fusion_sharpening import SharpeningMetric
from mamba_vision.evaluation.polyp_metric import PolypMetric
from mamba_vision.evaluation.restoration import RestorationMetric
from mamba_vision.evaluation.volume_metric import VolumeMetric
from mamba_vision.evaluation.volume_scores import ClassScore, ScoreOptions, score_structures, score_volume

__all__ = [
    "ClassScore",
    "FrechetDistance",
    "FusionMetric",
    "PolypMetric",
    "RestorationMetric",
    "ScoreOptions",
    "SharpeningMetric",
    "VolumeMetric",
    "score_fusion",
    "score_structures",
    "score_volume",
]
