from mamba_vision.models.necks.simple_fpn import SimpleFPN

__all__ = ["SimpleFPN"]
