from mamba_vision.models.tasks.volume_segmentor import VolumeSegmentor

__all__ = ["VolumeSegmentor"]
