# FusionMamba, GaoFen-2, 4 bands of 10 bits.
_base_ = ["../_base_/fusion/pancollection.py", "../_base_/fusion/adam_500e.py"]
model = dict(
    type="ImageSharpener",
    network=dict(type="FusionMamba", arch="gf2"),
    loss=dict(type="SharpeningLoss"),
    peak=1023.0,
    cut_size=256,  # as published; tiling=dict(tile=64) leaves no seams
)
train_dataloader = dict(dataset=dict(layout="gf2"))
val_dataloader = dict(dataset=dict(layout="gf2"))
test_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(type="SharpeningDataset", layout="gf2", split=split, pipeline=_base_.pipeline, test_mode=True)
            for split in ("reduced", "full")
        ]
    )
)
val_evaluator = dict(peak=1023.0)
test_evaluator = dict(peak=1023.0, sensor="GF2")
