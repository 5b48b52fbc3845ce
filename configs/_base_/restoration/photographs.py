# The two photographs that scikit-learn carries: their left parts to learn from, detailed tiles of the rest to
# test on.
# A configuration over this one sets train_pipeline and test_pipeline of the data sets.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="SamplePhotographs", split="train", repeat=100),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="SamplePhotographs", split="test", tile=64, detail=0.1, test_mode=True),
)
test_dataloader = val_dataloader
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=2e-3, betas=(0.9, 0.99), weight_decay=0))
