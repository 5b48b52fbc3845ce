# What every training of a promptable segmentor shares.
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
    logger=dict(type="LoggerHook", interval=20),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="AtomicCheckpointHook", interval=1, max_keep_ckpts=1, save_best="gt_box/dice", rule="greater"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
custom_hooks = [dict(type="FiniteLossHook"), dict(type="InterruptHook")]
env_cfg = dict(
    cudnn_benchmark=False,  # batches change their size
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=vis_backends)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
val_evaluator = dict(type="PolypMetric")
test_evaluator = val_evaluator
