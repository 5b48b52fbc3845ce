# From the published classifier, put into checkpoints/. Published with mixed precision: tools/train.py --amp.
_base_ = [
    "../_base_/segmentation/ade20k_512.py",
    "../_base_/segmentation/upernet.py",
    "../_base_/segmentation/adamw_160k.py",
    "../_base_/segmentation/runtime.py",
]

model = dict(
    backbone=dict(
        type="mamba_vision.LocalVMamba",
        arch="small",
        drop_path_rate=0.2,
        # the norms of the four maps start anew
        init_cfg=dict(
            type="Pretrained",
            checkpoint="checkpoints/local_vssm_small.ckpt",
            skip=["outnorm*.*"],
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
