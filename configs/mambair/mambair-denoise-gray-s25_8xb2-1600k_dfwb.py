# MambaIR, gray images with Gaussian noise of sigma 25; the color recipe on luminance.
_base_ = [
    "../_base_/restoration/runtime.py",
    "../_base_/restoration/dfwb_noise.py",
    "../_base_/restoration/adam_1600k.py",
]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIR", arch="denoise_gray"),
    loss=dict(type="PixelLoss", kind="charbonnier"),
    tiling=dict(tile=200, blend=False),  # as published; blend=True leaves no seams
)
sigma = 25
train_pipeline = [
    dict(type="LoadImagePair", channels=1),
    dict(type="RandomPairCrop", gt_size=128),
    dict(type="MakeNoisy", sigma=sigma),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [
    dict(type="LoadImagePair", channels=1),
    dict(type="MakeNoisy", sigma=sigma, seed=0),
    dict(type="PackImagePair"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
