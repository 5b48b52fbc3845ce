# SIDD: photographs with real noise in crops, tested on the 1280 validation blocks, not rounded to 256 levels.
train_pipeline = [
    dict(type="LoadImagePair"),
    dict(type="RandomPairCrop", gt_size=384),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [dict(type="LoadImagePair"), dict(type="PackImagePair")]
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="RestorationDataset", layout="sidd_train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RestorationDataset", layout="sidd_val", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="SIDDBlocks", pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type="RestorationMetric", quantize=False)
test_evaluator = val_evaluator
