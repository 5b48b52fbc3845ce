# BraTS 2023, adult glioma: four MR channels (t2w, t2f, t1n, t1c) of 1 mm, exclusive labels, scored as three regions.
# Prepared by: python tools/plan.py data/BraTS2023 --work-dir work_dirs/brats23 --model segmamba --spacing 1 1 1 \
#   --patch-size 128 128 128
_base_ = ["isotropic_128.py"]
scans = "data/BraTS2023"
plan = "work_dirs/brats23/plan.json"
splits = "work_dirs/brats23/splits.json"
prepared = "work_dirs/brats23/preprocessed"
fold = 0
classes = ["background", "necrosis", "oedema", "enhancing tumour"]
# Whole tumour, tumour core, enhancing tumour, by class number.
regions = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
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
val_evaluator = dict(type="VolumeMetric", classes=classes, scores=["dice"], regions=regions)
test_evaluator = dict(type="VolumeMetric", classes=classes, scores=["dice", "hd95", "surface_dice"], regions=regions)
