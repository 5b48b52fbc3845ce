from mamba_vision.utils.paths import project_folder

__all__ = ["project_folder"]
