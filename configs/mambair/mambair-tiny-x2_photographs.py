# Super-resolution x2 on scikit-learn's two photographs: beats bicubic after minutes on a CPU.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/photographs.py"]
scale = 2
train_pipeline = [
    dict(type="LoadImagePair", scale=scale),
    dict(type="RandomPairCrop", gt_size=48),
    dict(type="MakeBicubic"),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [
    dict(type="LoadImagePair", scale=scale),
    dict(type="CropToMultiple"),
    dict(type="MakeBicubic"),
    dict(type="PackImagePair"),
]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIR", arch="tiny", drop_path_rate=0.0),
    loss=dict(type="PixelLoss", kind="l1"),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type="RestorationMetric", border=scale, y_channel=True)
test_evaluator = val_evaluator
param_scheduler = dict(type="CosineAnnealingLR", end=2000, eta_min=1e-5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
