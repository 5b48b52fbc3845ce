# From a classifier of local-vmamba-tiny_8xb128_in1k.py, put into checkpoints/: none of this network is published.
_base_ = [
    "../_base_/segmentation/ade20k_512.py",
    "../_base_/segmentation/upernet.py",
    "../_base_/segmentation/adamw_160k.py",
    "../_base_/segmentation/runtime.py",
]

model = dict(
    backbone=dict(
        type="mamba_vision.LocalVMamba",
        arch="tiny",
        drop_path_rate=0.1,
        # the norms of the four maps start anew
        init_cfg=dict(
            type="Pretrained",
            checkpoint="checkpoints/local-vmamba-tiny.pth",
            prefix="backbone.",
            skip=["outnorm*.*"],
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
