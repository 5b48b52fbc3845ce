# DIV2K and Flickr2K at scale 3.
_base_ = ["./df2k.py"]
train_dataloader = dict(dataset=dict(scale=3))
val_dataloader = dict(dataset=dict(scale=3))
test_dataloader = dict(dataset=dict(scale=3))
val_evaluator = dict(border=3)
test_evaluator = dict(border=3)
