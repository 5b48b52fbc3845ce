# DIV2K and Flickr2K at scale 4.
_base_ = ["./df2k.py"]
train_dataloader = dict(dataset=dict(scale=4))
val_dataloader = dict(dataset=dict(scale=4))
test_dataloader = dict(dataset=dict(scale=4))
val_evaluator = dict(border=4)
test_evaluator = dict(border=4)
