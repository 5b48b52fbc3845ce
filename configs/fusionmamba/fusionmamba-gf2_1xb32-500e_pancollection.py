# FusionMamba, GaoFen-2, 4 bands of 10 bits.
_base_ = ["./fusionmamba-wv3_1xb32-500e_pancollection.py"]
model = dict(network=dict(arch="gf2"), peak=1023.0)
train_dataloader = dict(dataset=dict(layout="gf2"))
val_dataloader = dict(dataset=dict(layout="gf2"))
test_dataloader = dict(dataset=dict(layout="gf2"))
val_evaluator = dict(peak=1023.0)
test_evaluator = dict(peak=1023.0, sensor="GF2")
