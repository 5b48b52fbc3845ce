"""What a Python user calls: build, load, infer. Names are imported when they are first asked for."""

from mamba_vision.utils.lazy import lazy_names

__all__ = [
    "ImageClassifierInferencer",
    "ImageSegmentationInferencer",
    "TrainOptions",
    "VolumeEnsemble",
    "VolumeInferencer",
    "VolumeResult",
    "evaluate_volumes",
    "get_model",
    "inference_volume",
    "init_image_model",
    "init_prompt_model",
    "init_restorer",
    "init_volume_ensemble",
    "init_volume_model",
    "list_models",
    "plan_dataset",
    "restore_picture",
    "segment_with_prompts",
    "train",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ImageClassifierInferencer": "mamba_vision.apis.classification",
        "ImageSegmentationInferencer": "mamba_vision.apis.image_segmentation",
        "TrainOptions": "mamba_vision.apis.training",
        "VolumeEnsemble": "mamba_vision.apis.volume_ensemble",
        "VolumeInferencer": "mamba_vision.apis.volume_inferencer",
        "VolumeResult": "mamba_vision.apis.volume_result",
        "evaluate_volumes": "mamba_vision.apis.volume_testing",
        "get_model": "mamba_vision.apis.models",
        "inference_volume": "mamba_vision.apis.volume_inference",
        "init_image_model": "mamba_vision.apis.image_model",
        "init_prompt_model": "mamba_vision.apis.prompt_model",
        "init_restorer": "mamba_vision.apis.restoration",
        "init_volume_ensemble": "mamba_vision.apis.volume_ensemble",
        "init_volume_model": "mamba_vision.apis.volume_model",
        "list_models": "mamba_vision.apis.model_names",
        "plan_dataset": "mamba_vision.apis.planning",
        "restore_picture": "mamba_vision.apis.restoration",
        "segment_with_prompts": "mamba_vision.apis.prompt_inference",
        "train": "mamba_vision.apis.training",
    },
)
