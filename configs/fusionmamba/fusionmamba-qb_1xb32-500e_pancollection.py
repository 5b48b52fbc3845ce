# FusionMamba, QuickBird, 4 bands of 11 bits.
_base_ = ["../_base_/fusion/pancollection.py", "../_base_/fusion/adam_500e.py"]
model = dict(
    type="ImageSharpener",
    network=dict(type="FusionMamba", arch="qb"),
    loss=dict(type="SharpeningLoss"),
    peak=2047.0,
    cut_size=256,  # as published; tiling=dict(tile=64) leaves no seams
)
train_dataloader = dict(dataset=dict(layout="qb"))
val_dataloader = dict(dataset=dict(layout="qb"))
test_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(type="SharpeningDataset", layout="qb", split=split, pipeline=_base_.pipeline, test_mode=True)
            for split in ("reduced", "full")
        ]
    )
)
val_evaluator = dict(peak=2047.0)
test_evaluator = dict(peak=2047.0, sensor="QB")
