"""Checkpoint files: read without running them, find the weights, rename, load strictly, save whole. Knows no model."""

from mamba_vision.checkpoints.errors import CheckpointError
from mamba_vision.checkpoints.loading import load_file
from mamba_vision.checkpoints.mmengine_loading import Pretrained, install_safe_loading
from mamba_vision.checkpoints.published import LoadReport, load_published
from mamba_vision.checkpoints.renaming import published_names, rename
from mamba_vision.checkpoints.saving import save_checkpoint
from mamba_vision.checkpoints.state_dicts import find_state_dict

__all__ = [
    "CheckpointError",
    "LoadReport",
    "Pretrained",
    "find_state_dict",
    "install_safe_loading",
    "load_file",
    "load_published",
    "published_names",
    "rename",
    "save_checkpoint",
]
