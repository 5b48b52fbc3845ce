_base_ = ["../_base_/volumes/lits.py", "../_base_/volumes/runtime.py"]
model = dict(
    type="VolumeSegmentor",
    plan={{_base_.plan}},
    data_preprocessor=dict(type="VolumePreprocessor"),
    network=dict(type="LightMUNet", arch="liver_3d"),
    loss=dict(type="DiceCELoss"),
    inferer=dict(
        type="SlidingWindowInferer",
        roi_size={{_base_.patch_size}},
        sw_batch_size=2,
        overlap=0.5,
        mode="gaussian",
        sigma_scale=0.125,
    ),
    mirror_axes=(),
)
# 100 epochs of 250 iterations in float32: train without --amp to repeat the paper.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="MambaOptimWrapperConstructor",
    optimizer=dict(type="Adam", lr=1e-4, weight_decay=1e-5),
    clip_grad=dict(max_norm=12),
)
# lr = 1e-4 (1 - epoch/100)^0.9; MMEngine counts the length of the decay from the second step on, hence 101.
param_scheduler = dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=101, by_epoch=True)
train_cfg = dict(type="ResumableEpochLoop", max_epochs=100, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(enable=False, base_batch_size=2)
