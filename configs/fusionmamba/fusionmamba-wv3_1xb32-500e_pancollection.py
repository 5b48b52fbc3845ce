# FusionMamba, WorldView-3, 8 bands of 11 bits.
_base_ = ["../_base_/fusion/pancollection.py", "../_base_/fusion/adam_500e.py"]
model = dict(
    type="ImageSharpener",
    network=dict(type="FusionMamba", arch="wv3"),
    loss=dict(type="SharpeningLoss"),
    peak=2047.0,
    cut_size=256,  # as published; tiling=dict(tile=64) leaves no seams
)
train_dataloader = dict(dataset=dict(layout="wv3"))
val_dataloader = dict(dataset=dict(layout="wv3"))
test_dataloader = dict(dataset=dict(layout="wv3"))
val_evaluator = dict(peak=2047.0)
test_evaluator = dict(peak=2047.0, sensor="WV3")
