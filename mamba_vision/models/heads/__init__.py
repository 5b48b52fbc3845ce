from mamba_vision.models.heads.token_max import TokenMaxClsHead

__all__ = ["TokenMaxClsHead"]
