# Gray JPEG images of quality 30.
_base_ = ["./dfwb_jpeg.py"]
train_dataloader = dict(dataset=dict(quality=30))
val_dataloader = dict(dataset=dict(quality=30))
test_dataloader = dict(dataset=dict(quality=30))
