# Handwritten digits of 8 x 8 pixels, by class, with guidance: learns in minutes on a CPU.
_base_ = ["../_base_/generation/runtime.py"]

epochs = 60
model = dict(
    type="mamba_vision.DiffusionGenerator",
    network=dict(
        type="mamba_vision.ZigMa",
        arch=dict(embed_dims=96, num_layers=6, patch_size=2, img_size=8),
        in_channels=1,
        num_classes=10,
        null_class=True,
        scan_type="zigzagN8",
        positions="learned",
        drop_path_rate=0.0,
    ),
    sampler=dict(method="heun", num_steps=11),
    condition_dropout=0.1,
    guidance=1.5,
    data_preprocessor=dict(type="ImgDataPreprocessor", mean=[127.5], std=[127.5]),
)
pipeline = [dict(type="mmpretrain.PackInputs")]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="mamba_vision.SmallPictures", name="digits", split="train", pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=150,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="mamba_vision.SmallPictures", name="digits", split="val", pipeline=pipeline),
)
val_evaluator = dict(type="mamba_vision.FrechetDistance", features="pixels")
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=2, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(type="mamba_vision.ResumableEpochLoop", max_epochs=epochs, val_interval=20)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=23))
custom_hooks = [
    dict(type="EMAHook", momentum=5e-3, priority="ABOVE_NORMAL"),
    dict(type="mamba_vision.FiniteLossHook"),
    dict(type="mamba_vision.InterruptHook"),
    dict(type="mamba_vision.ProgressHook", metric="frechet_pixels"),
    dict(type="mamba_vision.ProgressPlotHook", metric="frechet_pixels"),
    dict(type="mamba_vision.SamplePictureHook", count=100),
]
