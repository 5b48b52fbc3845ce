_base_ = [
    "../_base_/classification/imagenet_224.py",
    "../_base_/classification/localmamba.py",
    "../_base_/classification/runtime.py",
]

model = dict(
    backbone=dict(type="mamba_vision.LocalVMamba", arch="tiny", out_indices=(3,), drop_path_rate=0.2),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(in_channels=768),
)
