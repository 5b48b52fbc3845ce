# What every segmentation run shares: MMSegmentation's hooks, this package's models in its registries.
default_scope = "mmseg"
custom_imports = dict(imports=["mamba_vision.models", "mamba_vision.datasets", "mamba_vision.checkpoints"])
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
tta_model = dict(type="SegTTAModel")
