from mamba_vision.datasets import fusion_transforms, prompt_transforms, restoration_transforms, transforms
from mamba_vision.datasets.fusion_pairs import FusionPairs
from mamba_vision.datasets.fusion_sharpening import SharpeningDataset
from mamba_vision.datasets.generation import ArrayPictures, LatentShards
from mamba_vision.datasets.patch_sampler import Draw, PatchBatchSampler
from mamba_vision.datasets.polyps import PolypDataset
from mamba_vision.datasets.prepared_case import PreparedCase
from mamba_vision.datasets.prompt_slices import BrainSlicePieces
from mamba_vision.datasets.restoration import RestorationDataset, SamplePhotographs, SIDDBlocks
from mamba_vision.datasets.scenes import SceneDataset
from mamba_vision.datasets.small_pictures import SmallPictures
from mamba_vision.datasets.volume_dataset import VolumeDataset

__all__ = [
    "ArrayPictures",
    "BrainSlicePieces",
    "Draw",
    "FusionPairs",
    "LatentShards",
    "PatchBatchSampler",
    "PolypDataset",
    "PreparedCase",
    "RestorationDataset",
    "SIDDBlocks",
    "SamplePhotographs",
    "SceneDataset",
    "SharpeningDataset",
    "SmallPictures",
    "VolumeDataset",
    "fusion_transforms",
    "prompt_transforms",
    "restoration_transforms",
    "transforms",
]
