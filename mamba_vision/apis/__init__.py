"""What a Python user calls: build, load, infer. Names are imported when they are first asked for."""

from mamba_vision.utils.lazy import lazy_names

__all__ = ["VolumeInferencer", "VolumeResult", "inference_volume", "init_volume_model", "plan_dataset"]

__getattr__ = lazy_names(
    __name__,
    {
        "VolumeInferencer": "mamba_vision.apis.volume_inferencer",
        "VolumeResult": "mamba_vision.apis.volume_inference",
        "inference_volume": "mamba_vision.apis.volume_inference",
        "init_volume_model": "mamba_vision.apis.volume_model",
        "plan_dataset": "mamba_vision.apis.planning",
    },
)
