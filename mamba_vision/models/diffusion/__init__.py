from mamba_vision.models.diffusion.likelihood import log_likelihood
from mamba_vision.models.diffusion.paths import GVPPath, LinearPath, Path, VPPath, diffusion_form
from mamba_vision.models.diffusion.sampling import Sampler
from mamba_vision.models.diffusion.transport import Transport

__all__ = [
    "GVPPath",
    "LinearPath",
    "Path",
    "Sampler",
    "Transport",
    "VPPath",
    "diffusion_form",
    "log_likelihood",
]
