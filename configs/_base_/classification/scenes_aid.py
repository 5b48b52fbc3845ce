# AID: 30 classes, 10,000 images, half for training.
# data/aid/<class>/<image>; see `SceneDataset` for the split.
_base_ = "./rsmamba.py"

data_preprocessor = dict(
    num_classes=30,
    mean=[101.02608706, 103.9996994, 93.50157708],
    std=[40.36728927, 37.11132278, 35.90649976],
    to_rgb=True,
)
model = dict(head=dict(num_classes=30))
train_pipeline = _base_.train_pipeline
train_pipeline[4]["hparams"]["pad_val"] = [94, 104, 101]  # the mean, BGR
scenes = dict(name="aid", data_root="data/aid", train_share=0.5)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **scenes))
val_dataloader = dict(dataset=scenes)
test_dataloader = val_dataloader
