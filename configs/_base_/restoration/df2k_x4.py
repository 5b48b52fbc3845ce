# DIV2K and Flickr2K at scale 4, tested on the five usual sets: PSNR and SSIM of luminance without 4 border pixels.
scale = 4
train_pipeline = [
    dict(type="LoadImagePair", scale=scale),
    dict(type="RandomPairCrop", gt_size=192),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [dict(type="LoadImagePair", scale=scale), dict(type="PackImagePair")]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="RestorationDataset", layout="df2k", scale=scale, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RestorationDataset", layout="set5", scale=scale, pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(type="RestorationDataset", layout=layout, scale=scale, pipeline=test_pipeline, test_mode=True)
            for layout in ("set5", "set14", "b100", "urban100", "manga109")
        ],
    ),
)
val_evaluator = dict(type="RestorationMetric", border=scale, y_channel=True)
test_evaluator = val_evaluator
