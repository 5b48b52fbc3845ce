from mamba_vision.datasets import transforms
from mamba_vision.datasets.generation import ArrayPictures, LatentShards
from mamba_vision.datasets.patch_sampler import Draw, PatchBatchSampler
from mamba_vision.datasets.prepared_case import PreparedCase
from mamba_vision.datasets.scenes import SceneDataset
from mamba_vision.datasets.small_pictures import SmallPictures
from mamba_vision.datasets.volume_dataset import VolumeDataset

__all__ = [
    "ArrayPictures",
    "Draw",
    "LatentShards",
    "PatchBatchSampler",
    "PreparedCase",
    "SceneDataset",
    "SmallPictures",
    "VolumeDataset",
    "transforms",
]
