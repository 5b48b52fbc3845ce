from mamba_vision.models.networks.umamba import UMamba

__all__ = ["UMamba"]
