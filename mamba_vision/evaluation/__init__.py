from mamba_vision.evaluation.frechet_distance import FrechetDistance
from mamba_vision.evaluation.restoration import RestorationMetric
from mamba_vision.evaluation.volume_metric import VolumeMetric
from mamba_vision.evaluation.volume_scores import ClassScore, score_volume

__all__ = ["ClassScore", "FrechetDistance", "RestorationMetric", "VolumeMetric", "score_volume"]
