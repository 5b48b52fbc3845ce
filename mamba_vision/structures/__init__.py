from mamba_vision.structures.restoration_data_sample import RestorationDataSample
from mamba_vision.structures.volume_data_sample import VolumeDataSample

__all__ = ["RestorationDataSample", "VolumeDataSample"]
