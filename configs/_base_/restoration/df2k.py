# DIV2K and Flickr2K, tested on the five usual sets: PSNR and SSIM of luminance, without as many border pixels as the
# scale. A configuration over this one sets the scale.
train_pipeline = [
    dict(type="LoadImagePair"),
    dict(type="RandomPairCrop", gt_size=192),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [dict(type="LoadImagePair"), dict(type="PackImagePair")]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="RestorationDataset", layout="df2k", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RestorationDataset", layout="set5", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RestorationDataset",
        layout=["set5", "set14", "b100", "urban100", "manga109"],
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="RestorationMetric", y_channel=True)
test_evaluator = val_evaluator
