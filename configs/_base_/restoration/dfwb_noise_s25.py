# Clean images with Gaussian noise of sigma 25.
_base_ = ["./dfwb_noise.py"]
sigma = 25
train_pipeline = [
    dict(type="LoadImagePair"),
    dict(type="RandomPairCrop", gt_size=128),
    dict(type="MakeNoisy", sigma=sigma),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [dict(type="LoadImagePair"), dict(type="MakeNoisy", sigma=sigma, seed=0), dict(type="PackImagePair")]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
