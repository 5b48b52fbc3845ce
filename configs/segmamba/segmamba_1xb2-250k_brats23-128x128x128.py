_base_ = [
    "../_base_/volumes/brats23.py",
    "../_base_/volumes/sgd_250k.py",
    "../_base_/volumes/runtime.py",
]
model = dict(
    type="VolumeSegmentor",
    plan={{_base_.plan}},
    data_preprocessor=dict(type="VolumePreprocessor"),
    network=dict(type="SegMamba", arch="brats2023"),
    loss=dict(type="DiceCELoss", weight_dice=0.0),  # cross-entropy alone, as published
    inferer=dict(
        type="SlidingWindowInferer",
        roi_size={{_base_.patch_size}},
        sw_batch_size=2,
        overlap=0.5,
        mode="gaussian",
        sigma_scale=0.125,
    ),
    mirror_axes=(0, 1, 2),
)
# The rate falls at every iteration, not every epoch; MMEngine counts its length from the second step on.
param_scheduler = dict(_delete_=True, type="PolyLR", power=0.9, eta_min=0, begin=0, end=250001, by_epoch=False)
