from mamba_vision.datasets import restoration_transforms, transforms
from mamba_vision.datasets.generation import ArrayPictures, LatentShards
from mamba_vision.datasets.patch_sampler import Draw, PatchBatchSampler
from mamba_vision.datasets.prepared_case import PreparedCase
from mamba_vision.datasets.restoration import RestorationDataset, SamplePhotographs, SIDDBlocks
from mamba_vision.datasets.scenes import SceneDataset
from mamba_vision.datasets.small_pictures import SmallPictures
from mamba_vision.datasets.volume_dataset import VolumeDataset

__all__ = [
    "ArrayPictures",
    "Draw",
    "LatentShards",
    "PatchBatchSampler",
    "PreparedCase",
    "RestorationDataset",
    "SIDDBlocks",
    "SamplePhotographs",
    "SceneDataset",
    "SmallPictures",
    "VolumeDataset",
    "restoration_transforms",
    "transforms",
]
