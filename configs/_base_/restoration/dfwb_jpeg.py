# Gray JPEG images of one quality and their originals; tested on Classic5 and LIVE1. Here of quality 40.
quality = 40
train_pipeline = [
    dict(type="LoadImagePair", channels=1),
    dict(type="RandomPairCrop", gt_size=126),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [dict(type="LoadImagePair", channels=1), dict(type="PackImagePair")]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="RestorationDataset", layout="dfwb_car", quality=quality, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RestorationDataset", layout="classic5", quality=quality, pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RestorationDataset",
        layout=["classic5", "live1"],
        quality=quality,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="RestorationMetric", y_channel=True)
test_evaluator = val_evaluator
