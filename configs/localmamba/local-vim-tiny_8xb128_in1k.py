_base_ = [
    "../_base_/classification/imagenet_224.py",
    "../_base_/classification/localmamba.py",
    "../_base_/classification/runtime.py",
]

model = dict(
    backbone=dict(type="mamba_vision.LocalVim", arch="tiny", drop_path_rate=0.1),
    head=dict(in_channels=192),
)
