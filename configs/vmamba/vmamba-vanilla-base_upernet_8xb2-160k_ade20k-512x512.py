_base_ = [
    "../_base_/segmentation/ade20k_512.py",
    "../_base_/segmentation/upernet.py",
    "../_base_/segmentation/adamw_160k.py",
    "../_base_/segmentation/runtime.py",
]

model = dict(
    backbone=dict(
        type="mamba_vision.VMamba",
        arch="vanilla_base",
        drop_path_rate=0.6,
        # the published classifier, in checkpoints/; the norms of the four maps start anew
        init_cfg=dict(
            type="Pretrained", checkpoint="checkpoints/vssmbase_dp06_ckpt_epoch_241.pth", skip=["outnorm*.**"]
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
