# What every training of a restorer or a fusion network shares: iterations instead of epochs, checkpoints that a crash
# can't destroy, and after each validation a table and pictures in comparison/: what does it gain over interpolation?
default_scope = "mamba_vision"
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
    checkpoint=dict(
        type="AtomicCheckpointHook", by_epoch=False, interval=5000, max_keep_ckpts=1, save_best="psnr", rule="greater"
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
custom_hooks = [dict(type="FiniteLossHook"), dict(type="InterruptHook"), dict(type="ComparisonHook")]
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=vis_backends)
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
