# MambaDFuse on two made-up views of scikit-learn's photographs, each out of focus where the other is sharp; minutes on
# a GPU, a quarter of an hour on a CPU. Not two sensors, but the truth is known.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/photographs.py"]
train_pipeline = [
    dict(type="LoadImagePair"),
    dict(type="RandomPairCrop", gt_size=32),
    dict(type="RandomFlipTurn"),
    dict(type="MakeTwoViews"),
    dict(type="PackFusionPair"),
]
test_pipeline = [dict(type="LoadImagePair"), dict(type="MakeTwoViews", seed=0), dict(type="PackFusionPair")]
model = dict(
    type="ImageFuser",
    network=dict(type="MambaDFuse", arch="tiny", embed_dim=24),
    loss=dict(type="FusionLoss"),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type="FusionMetric", truth=True)
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = dict(type="CosineAnnealingLR", end=2000, eta_min=1e-5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2000, val_interval=500)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=500, save_best="PSNR"))
