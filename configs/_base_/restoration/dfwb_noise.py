# Clean images with Gaussian noise made on the fly; tested on CBSD68, Kodak24, McMaster and Urban100, on all channels.
# Here of sigma 15.
sigma = 15
train_pipeline = [
    dict(type="LoadImagePair"),
    dict(type="RandomPairCrop", gt_size=128),
    dict(type="MakeNoisy", sigma=sigma),
    dict(type="RandomFlipTurn"),
    dict(type="PackImagePair"),
]
test_pipeline = [dict(type="LoadImagePair"), dict(type="MakeNoisy", sigma=sigma, seed=0), dict(type="PackImagePair")]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="RestorationDataset", layout="dfwb", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="RestorationDataset", layout="mcmaster_color", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RestorationDataset",
        layout=["cbsd68_color", "kodak24_color", "mcmaster_color", "urban100_color"],
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="RestorationMetric")
test_evaluator = val_evaluator
