# LocalMamba as a classifier. A config adds backbone and head's width.
_base_ = "./adamw_300e.py"

model = dict(
    type="ImageClassifier",
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.2), dict(type="CutMix", alpha=1.0)]),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.04))
# The warm-up goes from epoch to epoch, the rest from iteration to iteration.
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, by_epoch=True, begin=0, end=20),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]
