# RSMamba on a remote-sensing set: 500 epochs from scratch, macro precision, recall and F1. scenes_*.py add the set.
_base_ = "./runtime.py"

model = dict(
    type="ImageClassifier",
    backbone=dict(type="mamba_vision.RSMamba", img_size=224, patch_size=16, patch_cfg=dict(stride=8)),
    head=dict(
        type="LinearClsHead",
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=224, crop_ratio_range=(0.4, 1.0), backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="RandomFlip", prob=0.5, direction="vertical"),
    dict(
        type="AutoAugment",
        policies="imagenet",
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(type="mamba_vision.SceneDataset", split="train", pipeline=train_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(type="mamba_vision.SceneDataset", split="val", pipeline=test_pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
val_evaluator = dict(type="SingleLabelMetric", items=("precision", "recall", "f1-score"), average="macro")
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=10, end=500),
]
train_cfg = dict(by_epoch=True, max_epochs=500, val_interval=20)
val_cfg = {}
test_cfg = {}
default_hooks = dict(
    checkpoint=dict(
        type="CheckpointHook", interval=20, max_keep_ckpts=3, save_best="single-label/f1-score", rule="greater"
    )
)
auto_scale_lr = dict(base_batch_size=1024)
