# FusionMamba: 500 epochs, the step size halved every 200; validated every 10.
_base_ = ["../restoration/runtime.py"]
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=5e-4, weight_decay=0))
param_scheduler = dict(type="StepLR", step_size=200, gamma=0.5, by_epoch=True)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=500, val_interval=10)
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=True, interval=20, save_best="ERGAS", rule="less"),
)
log_processor = dict(by_epoch=True)
randomness = dict(seed=1)
