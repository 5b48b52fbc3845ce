# From a classifier of local-vim-small_8xb128_in1k.py, put into checkpoints/: none of this network is published.
_base_ = [
    "../_base_/segmentation/ade20k_512.py",
    "../_base_/segmentation/upernet.py",
    "../_base_/segmentation/adamw_160k.py",
    "../_base_/segmentation/runtime.py",
]

model = dict(
    backbone=dict(
        type="mamba_vision.LocalVim",
        arch="small",
        img_size=512,
        out_type="featmap",
        out_indices=(4, 9, 14, 19),
        norm="ln",
        drop_path_rate=0.1,
        # The norms of the four maps start anew, and so do the biases, which the classifier's RMSNorms do not have.
        init_cfg=dict(
            type="Pretrained",
            checkpoint="checkpoints/local-vim-small.pth",
            prefix="backbone.",
            skip=["outnorm_*.*", "layers.*.norm.bias"],
        ),
    ),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)
