# DIV2K and Flickr2K made worse on the fly as cameras do, x4; validated on DIV2K images made worse likewise.
scale = 4
train_pipeline = [
    dict(type="LoadImagePair", scale=scale),
    dict(type="RandomPairCrop", gt_size=256),
    dict(type="RandomFlipTurn"),
    dict(type="MakeRealistic"),
    dict(type="PackImagePair"),
]
test_pipeline = [
    dict(type="LoadImagePair", scale=scale),
    dict(type="CropToMultiple"),
    dict(type="MakeRealistic", seed=0),
    dict(type="PackImagePair"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="RestorationDataset", layout="df2k", lq="", scale=scale, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RestorationDataset", layout="div2k_valid", lq="", scale=scale, limit=10, pipeline=test_pipeline,
        test_mode=True,
    ),
)  # fmt: skip
test_dataloader = val_dataloader
val_evaluator = dict(type="RestorationMetric", border=scale, y_channel=True)
test_evaluator = val_evaluator
