from mamba_vision.models.tasks.fusion import ImageFuser
from mamba_vision.models.tasks.fusion_sharpening import ImageSharpener
from mamba_vision.models.tasks.generation import DiffusionGenerator
from mamba_vision.models.tasks.prompt_segmentor import PromptSegmentor
from mamba_vision.models.tasks.restoration import ImagePreprocessor, ImageRestorer
from mamba_vision.models.tasks.restoration_gan import AdversarialRestorer
from mamba_vision.models.tasks.volume_segmentor import VolumeSegmentor

__all__ = [
    "AdversarialRestorer",
    "DiffusionGenerator",
    "ImageFuser",
    "ImagePreprocessor",
    "ImageRestorer",
    "ImageSharpener",
    "PromptSegmentor",
    "VolumeSegmentor",
]
