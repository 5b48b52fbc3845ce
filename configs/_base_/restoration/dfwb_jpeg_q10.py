# Gray JPEG images of quality 10.
_base_ = ["./dfwb_jpeg.py"]
train_dataloader = dict(dataset=dict(quality=10))
val_dataloader = dict(dataset=dict(quality=10))
test_dataloader = dict(dataset=dict(quality=10))
