# Vim as a classifier, trained as DeiT. A config adds the arch and the head's width.
_base_ = ["./imagenet_224.py", "./adamw_300e.py", "./runtime.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(type="mamba_vision.Vim"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
train_dataloader = dict(sampler=dict(type="RepeatAugSampler", shuffle=True, num_repeats=3))
custom_hooks = [dict(type="EMAHook", momentum=4e-5, priority="ABOVE_NORMAL")]
