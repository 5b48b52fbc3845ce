# MambaDFuse: 10,000 iterations at one step size (it is halved at 250,000, which nobody reaches). Validated and tested,
# as published, is the moving average of the weights.
_base_ = ["../restoration/runtime.py"]
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=2e-5, weight_decay=0))
param_scheduler = dict(
    type="MultiStepLR", milestones=[250_000, 400_000, 450_000, 475_000, 500_000], gamma=0.5, by_epoch=False
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=10_000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000, save_best="VIF"))
custom_hooks = [
    dict(type="FiniteLossHook"),
    dict(type="InterruptHook"),
    dict(type="ComparisonHook"),
    dict(type="EMAHook", momentum=1e-3, priority="ABOVE_NORMAL"),
]
