# FusionMamba, CAVE, 31 bands guided by RGB. The authors' network for many bands is not published: this one is ours.
_base_ = ["../_base_/fusion/hyperspectral.py", "../_base_/fusion/adam_500e.py"]
model = dict(
    type="ImageSharpener",
    network=dict(type="FusionMamba", arch="cave"),
    loss=dict(type="SharpeningLoss"),
    tiling=dict(tile=64),
)
train_dataloader = dict(dataset=dict(layout="cave", data_root="data/CAVE"))
val_dataloader = dict(dataset=dict(layout="cave", data_root="data/CAVE"))
test_dataloader = dict(dataset=dict(layout="cave", data_root="data/CAVE"))
