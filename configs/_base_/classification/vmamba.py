# VMamba as a classifier, trained as Swin. A config adds the arch and the head's width.
_base_ = ["./imagenet_224.py", "./adamw_300e.py", "./runtime.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(type="mamba_vision.VMamba", out_indices=(3,)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]
custom_hooks = [dict(type="EMAHook", momentum=1e-4, priority="ABOVE_NORMAL")]
