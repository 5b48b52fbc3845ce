# FusionMamba, QuickBird, 4 bands of 11 bits.
_base_ = ["./fusionmamba-wv3_1xb32-500e_pancollection.py"]
model = dict(network=dict(arch="qb"), peak=2047.0)
train_dataloader = dict(dataset=dict(layout="qb"))
val_dataloader = dict(dataset=dict(layout="qb"))
test_dataloader = dict(dataset=dict(layout="qb"))
val_evaluator = dict(peak=2047.0)
test_evaluator = dict(peak=2047.0, sensor="QB")
