# AdamW, 100 epochs of cosine decay after 5 of warm-up. An encoder that starts from ImageNet learns ten times slower.
_base_ = "runtime.py"
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="MambaOptimWrapperConstructor",  # no decay of A_log, D and learned tokens
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,  # norms and biases
        custom_keys={"network.encoder": dict(lr_mult=0.1)},
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=True, begin=5, end=100, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=5)
custom_hooks = [
    dict(type="FiniteLossHook"),
    dict(type="InterruptHook"),
    dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.001, update_buffers=True),
]
auto_scale_lr = dict(base_batch_size=16, enable=False)
