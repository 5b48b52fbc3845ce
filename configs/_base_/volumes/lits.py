# Liver and tumours of LiTS, CT.
# Prepared by: python tools/plan.py data/Dataset003_Liver --work-dir work_dirs/lits --model lightm_unet \
#   --patch-size 128 128 128
_base_ = ["isotropic_128.py"]
scans = "data/Dataset003_Liver"
plan = "work_dirs/lits/plan.json"
splits = "work_dirs/lits/splits.json"
prepared = "work_dirs/lits/preprocessed"
fold = 0
classes = ["background", "liver", "tumour"]
cases = dict(root=prepared, splits=splits, fold=fold, classes=classes)
train_dataloader = dict(dataset=dict(**cases))
val_dataloader = dict(dataset=dict(**cases))
test_dataloader = val_dataloader
val_evaluator = dict(classes=classes)
test_evaluator = val_evaluator
