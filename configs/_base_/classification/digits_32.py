# scikit-learn's handwritten digits (1498 for training, 299 for validation) at 32 x 32 pixels, grey: real pictures with
# nothing to download, a schedule for a CPU.
data_preprocessor = dict(num_classes=10, mean=[127.5], std=[127.5], to_rgb=False)
pipeline = [dict(type="PackInputs")]
test_pipeline = [  # of picture files, for tools/classify.py
    dict(type="LoadImageFromFile", color_type="grayscale"),
    dict(type="Resize", scale=(32, 32)),
    dict(type="PackInputs"),
]
digits = dict(type="mamba_vision.SmallPictures", name="digits", size=32, pipeline=pipeline)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(split="train", **digits),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(split="val", **digits),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
val_evaluator = dict(type="Accuracy", topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.04),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=2, end=20, convert_to_iter_based=True),
]
train_cfg = dict(type="mamba_vision.ResumableEpochLoop", max_epochs=20, val_interval=5)
val_cfg = {}
test_cfg = {}
auto_scale_lr = dict(base_batch_size=64)
