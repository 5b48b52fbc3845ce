# Liver and tumours of LiTS, CT.
# Prepared by: python tools/plan.py data/LiTS --work-dir work_dirs/lits --model lightm_unet --patch-size 128 128 128
_base_ = ["isotropic_128.py"]
scans = "data/LiTS"
plan = "work_dirs/lits/plan.json"
splits = "work_dirs/lits/splits.json"
prepared = "work_dirs/lits/preprocessed"
fold = 0
classes = ["background", "liver", "tumour"]
dataset = dict(type="VolumeDataset", root=prepared, splits=splits, fold=fold, classes=classes)
train_dataloader = dict(
    batch_size={{_base_.batch_size}},
    num_workers=12,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="PatchBatchSampler", iterations=250, foreground=0.33),
    dataset=dict(
        **dataset,
        split="train",
        patch_size={{_base_.enlarged}},
        final_size={{_base_.patch_size}},
        pipeline={{_base_.train_pipeline}},
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, split="val"),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="VolumeMetric", classes=classes, scores=["dice"])
test_evaluator = dict(type="VolumeMetric", classes=classes, scores=["dice", "hd95", "surface_dice"])
