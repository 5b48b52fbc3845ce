# BraTS 2023, adult glioma: four MR channels (t2w, t2f, t1n, t1c) of 1 mm, exclusive labels, scored as three regions.
# Prepared by: python tools/plan.py data/Dataset137_BraTS2023 --work-dir work_dirs/brats23 --model segmamba \
#   --spacing 1 1 1 --patch-size 128 128 128
_base_ = ["isotropic_128.py"]
scans = "data/Dataset137_BraTS2023"
plan = "work_dirs/brats23/plan.json"
splits = "work_dirs/brats23/splits.json"
prepared = "work_dirs/brats23/preprocessed"
fold = 0
classes = ["background", "necrosis", "oedema", "enhancing tumour"]
# Whole tumour, tumour core, enhancing tumour, by class number.
regions = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
cases = dict(root=prepared, splits=splits, fold=fold, classes=classes)
train_dataloader = dict(dataset=dict(**cases))
val_dataloader = dict(dataset=dict(**cases))
test_dataloader = val_dataloader
val_evaluator = dict(classes=classes, regions=regions)
test_evaluator = val_evaluator
