_base_ = [
    "../_base_/segmentation/ade20k_512.py",
    "../_base_/segmentation/upernet.py",
    "../_base_/segmentation/adamw_160k.py",
    "../_base_/segmentation/runtime.py",
]

model = dict(
    backbone=dict(
        type="mamba_vision.VMamba",
        arch="small_s1l20",
        drop_path_rate=0.3,
        # the published classifier, in checkpoints/; the norms of the four maps start anew
        init_cfg=dict(
            type="Pretrained", checkpoint="checkpoints/vssm1_small_0229s_ckpt_epoch_240.pth", skip=["outnorm*.**"]
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
