"""What a Python user calls: build, load, infer. Names are imported when they are first asked for."""

from mamba_vision.utils.lazy import lazy_names

__all__ = [
    "TrainOptions",
    "VolumeInferencer",
    "VolumeResult",
    "evaluate_volumes",
    "inference_volume",
    "init_restorer",
    "init_volume_model",
    "plan_dataset",
    "restore_picture",
    "train",
]

__getattr__ = lazy_names(
    __name__,
    {
        "TrainOptions": "mamba_vision.apis.training",
        "VolumeInferencer": "mamba_vision.apis.volume_inferencer",
        "VolumeResult": "mamba_vision.apis.volume_inference",
        "evaluate_volumes": "mamba_vision.apis.volume_testing",
        "inference_volume": "mamba_vision.apis.volume_inference",
        "init_restorer": "mamba_vision.apis.restoration",
        "init_volume_model": "mamba_vision.apis.volume_model",
        "plan_dataset": "mamba_vision.apis.planning",
        "restore_picture": "mamba_vision.apis.restoration",
        "train": "mamba_vision.apis.training",
    },
)
