# FusionMamba, Botswana, 145 bands. The authors' network for many bands is not published: this one is ours.
_base_ = ["../_base_/fusion/hyperspectral.py", "../_base_/fusion/adam_500e.py"]
model = dict(
    type="ImageSharpener",
    network=dict(type="FusionMamba", arch="botswana"),
    loss=dict(type="SharpeningLoss"),
    tiling=dict(tile=64),
)
train_dataloader = dict(dataset=dict(layout="botswana", data_root="data/HyperPanCollection"))
val_dataloader = dict(dataset=dict(layout="botswana", data_root="data/HyperPanCollection"))
test_dataloader = dict(dataset=dict(layout="botswana", data_root="data/HyperPanCollection"))
