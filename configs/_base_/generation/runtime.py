# What every training of a generator shares: an average of the weights, which validations, checkpoints and samples use.
default_scope = "mmengine"
custom_imports = dict(
    imports=[
        "mamba_vision.models",
        "mamba_vision.datasets",
        "mamba_vision.evaluation",
        "mamba_vision.engine",
        "mamba_vision.checkpoints",
    ]
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="mamba_vision.AtomicCheckpointHook", interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
custom_hooks = [
    dict(type="mamba_vision.FiniteLossHook"),
    dict(type="mamba_vision.InterruptHook"),
]
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=vis_backends)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
