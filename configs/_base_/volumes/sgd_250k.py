# nnU-Net's schedule: 1000 epochs of 250 iterations, SGD, lr = 0.01 (1 - epoch/1000)^0.9.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="MambaOptimWrapperConstructor",
    optimizer=dict(type="SGD", lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5),
    clip_grad=dict(max_norm=12),
)
# MMEngine counts the length of the decay from the second step on, hence 1001.
param_scheduler = dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=1001, by_epoch=True)
train_cfg = dict(type="ResumableEpochLoop", max_epochs=1000, val_interval=25)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(enable=False, base_batch_size=2)
