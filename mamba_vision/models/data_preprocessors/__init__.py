from mamba_vision.models.data_preprocessors.volume import VolumePreprocessor

__all__ = ["VolumePreprocessor"]
