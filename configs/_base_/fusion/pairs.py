# Registered pairs of gray images, 6 in a batch on each of two GPUs; a configuration over this one sets the layout.
train_pipeline = [
    dict(type="LoadFusionPair"),
    dict(type="RandomFusionCrop", size=128),
    dict(type="RandomFlipTurn", keys=["first", "second"]),
    dict(type="PackFusionPair"),
]
test_pipeline = [dict(type="LoadFusionPair"), dict(type="PackFusionPair")]
train_dataloader = dict(
    batch_size=6,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="FusionPairs", split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="FusionPairs", split="test", limit=20, pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="FusionPairs", split="test", pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type="FusionMetric")
test_evaluator = val_evaluator
