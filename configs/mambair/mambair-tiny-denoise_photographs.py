# Gaussian noise of sigma 25 on scikit-learn's two photographs: learns in minutes on a CPU.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/photographs.py"]
train_pipeline = [
    dict(type="LoadImagePair"),
    dict(type="RandomPairCrop", gt_size=32),
    dict(type="MakeNoisy", sigma=25),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [dict(type="LoadImagePair"), dict(type="MakeNoisy", sigma=25, seed=0), dict(type="PackImagePair")]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIRv2", arch="tiny_denoise"),
    loss=dict(type="PixelLoss", kind="charbonnier"),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type="RestorationMetric")
test_evaluator = val_evaluator
param_scheduler = dict(type="CosineAnnealingLR", end=1000, eta_min=1e-5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=1000, val_interval=250)
default_hooks = dict(checkpoint=dict(interval=250))
