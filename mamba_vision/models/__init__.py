"""The systems: importing this package registers all of them. Each sub-package says itself what it offers."""

from mamba_vision.models import backbones, data_preprocessors, heads, layers, losses, mixers, necks, networks, tasks

__all__ = ["backbones", "data_preprocessors", "heads", "layers", "losses", "mixers", "necks", "networks", "tasks"]
