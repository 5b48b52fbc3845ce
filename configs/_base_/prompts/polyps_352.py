# PraNet's split of the polyp data sets at 352 x 352: 1450 images to train on, six sets to test on.
# Tested without prompts and with those made from the truth. A detector's boxes in a file are a further kind:
#   --cfg-options test_dataloader.dataset.prompt_modes="['detector']" test_dataloader.dataset.pipeline.2.file=boxes.json
data_root = "data/polyps"
train_pipeline = [
    dict(type="LoadPromptImage"),
    dict(type="ResizePrompted", size=352),
    dict(type="AugmentPrompted"),
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted"),
]
test_pipeline = [
    dict(type="LoadPromptImage"),
    dict(type="ResizePrompted", size=352),
    dict(type="SimulatePrompts", file=None),
    dict(type="PackPrompted", original_mask=True),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="PolypDataset", data_root=data_root, parts="TrainDataset", pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PolypDataset",
        data_root=data_root,
        parts="test",
        prompt_modes=["none", "gt_box", "gt_box_jitter", "point"],
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
# As the field does for want of a validation set, the best epoch is chosen on seen sources alone.
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PolypDataset",
        data_root=data_root,
        parts=["TestDataset/Kvasir", "TestDataset/CVC-ClinicDB"],
        prompt_modes=["none", "gt_box"],
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
