# FusionMamba on scikit-learn's two photographs: their colors, 4 times smaller, as the image, their luminance as the
# guide (Wald's protocol). The network starts from interpolation: minutes on a GPU, half an hour on a CPU.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/photographs.py"]
scale = 4
train_pipeline = [
    dict(type="LoadImagePair", scale=scale),
    dict(type="RandomPairCrop", gt_size=32),
    dict(type="RandomFlipTurn"),
    dict(type="MakeGuidedPair"),
    dict(type="PackSharpening"),
]
test_pipeline = [
    dict(type="LoadImagePair", scale=scale),
    dict(type="CropToMultiple"),
    dict(type="MakeGuidedPair"),
    dict(type="PackSharpening"),
]
model = dict(
    type="ImageSharpener",
    network=dict(type="FusionMamba", arch="tiny", bands=3, upsampler="bicubic"),
    loss=dict(type="SharpeningLoss"),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type="SharpeningMetric", peak=255.0, scale=scale, cut_border=False)
test_evaluator = val_evaluator
param_scheduler = dict(type="CosineAnnealingLR", end=1200, eta_min=1e-5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=1200, val_interval=400)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=400, save_best="ERGAS", rule="less"))
