# UC Merced: 21 classes of 100 images, 70 % for training.
# data/uc_merced/<class>/<image>; see `SceneDataset` for the split.
_base_ = "./rsmamba.py"

data_preprocessor = dict(
    num_classes=21,
    mean=[123.770241, 125.41281689, 115.35737613],
    std=[44.17314347, 41.63589266, 39.5737929],
    to_rgb=True,
)
model = dict(head=dict(num_classes=21))
train_pipeline = _base_.train_pipeline
train_pipeline[4]["hparams"]["pad_val"] = [115, 125, 124]  # the mean, BGR
scenes = dict(name="uc", data_root="data/uc_merced", train_share=0.7)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **scenes))
val_dataloader = dict(dataset=scenes)
test_dataloader = val_dataloader
