from mamba_vision.structures.volume_data_sample import VolumeDataSample

__all__ = ["VolumeDataSample"]
