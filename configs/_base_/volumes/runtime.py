# What every training on volumes shares: hooks, logging, checkpoints that a crash can't destroy.
default_scope = "mamba_vision"
custom_imports = dict(
    imports=["mamba_vision.models", "mamba_vision.datasets", "mamba_vision.evaluation", "mamba_vision.engine"],
    allow_failed_imports=False,
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=10),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="AtomicCheckpointHook", interval=5, max_keep_ckpts=1, save_best="dice", rule="greater"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
custom_hooks = [
    dict(type="FiniteLossHook"),
    dict(type="InterruptHook"),
    dict(type="ProgressHook"),
    dict(type="ProgressPlotHook"),
    dict(type="ValidationPictureHook", cases=3),
]
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=vis_backends)
log_processor = dict(window_size=10)
log_level = "INFO"
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
randomness = dict(seed=0)
load_from = None
resume = False
