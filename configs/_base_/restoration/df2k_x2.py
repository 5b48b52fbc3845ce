# DIV2K and Flickr2K at scale 2.
_base_ = ["./df2k.py"]
train_pipeline = [
    dict(type="LoadImagePair"),
    dict(type="RandomPairCrop", gt_size=128),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
train_dataloader = dict(dataset=dict(scale=2, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(scale=2))
test_dataloader = dict(dataset=dict(scale=2))
val_evaluator = dict(border=2)
test_evaluator = dict(border=2)
