from mamba_vision.models.data_preprocessors.prompt import PromptPreprocessor
from mamba_vision.models.data_preprocessors.volume import VolumePreprocessor

__all__ = ["PromptPreprocessor", "VolumePreprocessor"]
