# MambaDFuse, infrared and visible images of MSRS.
_base_ = ["../_base_/fusion/pairs.py", "../_base_/fusion/adam_10k.py"]
model = dict(
    type="ImageFuser",
    network=dict(type="MambaDFuse", arch="vif"),
    loss=dict(type="FusionLoss"),
)
train_dataloader = dict(dataset=dict(layout="msrs"))
val_dataloader = dict(dataset=dict(layout="msrs"))
test_dataloader = dict(dataset=dict(layout="msrs"))
