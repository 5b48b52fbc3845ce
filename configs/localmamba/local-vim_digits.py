# A small LocalVim on digits, 8 x 8 tokens, not searched: rows and windows of 2 in every layer.
_base_ = [
    "../_base_/classification/digits_32.py",
    "../_base_/classification/runtime.py",
]

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="mamba_vision.LocalVim",
        arch=dict(embed_dims=32, num_layers=4),
        img_size=32,
        patch_size=4,
        in_channels=1,
        mixer=dict(d_state=4),  # 16 takes three times as long
    ),
    head=dict(
        type="LinearClsHead",
        num_classes=10,
        in_channels=32,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
    ),
)
default_hooks = dict(
    logger=dict(interval=24),
    checkpoint=dict(type="mamba_vision.AtomicCheckpointHook", save_best="accuracy/top1", max_keep_ckpts=1),
)
custom_hooks = [
    dict(type="mamba_vision.FiniteLossHook"),
    dict(type="mamba_vision.InterruptHook"),
    dict(type="mamba_vision.ProgressHook", metric="accuracy/top1"),
]
