# Images and guides of PanCollection, 32 pairs in a batch. Tested at reduced resolution, with the truth, and at full
# resolution, without. A configuration over this one sets the data sets' layout, and peak and sensor of the scores.
pipeline = [dict(type="PackSharpening")]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="SharpeningDataset", split="train", pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="SharpeningDataset", split="valid", pipeline=pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="SharpeningDataset", split=["reduced", "full"], pipeline=pipeline, test_mode=True),
)
val_evaluator = dict(type="SharpeningMetric", cut_border=False, scores=["PSNR", "SAM", "ERGAS"])
test_evaluator = dict(type="SharpeningMetric")
