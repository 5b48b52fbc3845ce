from mamba_vision.structures.fusion_data_sample import FusionDataSample
from mamba_vision.structures.prompt_data_sample import PromptDataSample
from mamba_vision.structures.restoration_data_sample import RestorationDataSample
from mamba_vision.structures.volume_data_sample import VolumeDataSample

__all__ = ["FusionDataSample", "PromptDataSample", "RestorationDataSample", "VolumeDataSample"]
