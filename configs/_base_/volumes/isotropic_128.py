# Patches of 128^3 voxels and nnU-Net's augmentation for them: turns of up to 30 degrees about every axis.
patch_size = (128, 128, 128)
enlarged = (154, 154, 154)  # cut before augmentation: room for the turns and zooms below
batch_size = 2

degree = 3.14159265 / 180
train_pipeline = [
    dict(type="RandRotated", keys=["image", "label"], prob=0.2, mode=["bilinear", "nearest"], padding_mode="zeros",
         range_x=30 * degree, range_y=30 * degree, range_z=30 * degree),
    dict(type="RandZoomd", keys=["image", "label"], prob=0.2, min_zoom=0.7, max_zoom=1.4,
         mode=["trilinear", "nearest"], padding_mode="constant"),
    dict(type="CenterSpatialCropd", keys=["image", "label"], roi_size=patch_size),
    dict(type="RandGaussianNoised", keys="image", prob=0.1, std=0.316),
    dict(type="RandGaussianSmoothd", keys="image", prob=0.2, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)),
    dict(type="RandScaleIntensityd", keys="image", prob=0.15, factors=0.25),
    dict(type="RandScaleIntensityFixedMeand", keys="image", prob=0.15, factors=0.25, preserve_range=True),
    dict(type="RandSimulateLowResolutiond", keys="image", prob=0.25, zoom_range=(0.5, 1.0)),
    dict(type="RandAdjustContrastd", keys="image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
    dict(type="RandAdjustContrastd", keys="image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    dict(type="RandFlipd", keys=["image", "label"], prob=0.5, spatial_axis=0),
    dict(type="RandFlipd", keys=["image", "label"], prob=0.5, spatial_axis=1),
    dict(type="RandFlipd", keys=["image", "label"], prob=0.5, spatial_axis=2),
]  # fmt: skip

# Where the cases are, their folds and classes, is said by the data set's own file.
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=12,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="PatchBatchSampler", iterations=250, foreground=0.33),
    dataset=dict(
        type="VolumeDataset", split="train", patch_size=enlarged, final_size=patch_size, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="VolumeDataset", split="val"),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="VolumeMetric", scores=["dice"])
test_evaluator = dict(type="VolumeMetric", scores=["dice", "hd95", "surface_dice"])
