# NWPU-RESISC45: 45 classes of 700 images, 70 % for training.
# data/nwpu_resisc45/<class>/<image>; see `SceneDataset` for the split.
_base_ = "./rsmamba.py"

data_preprocessor = dict(
    num_classes=45,
    mean=[93.847266, 97.20128819, 87.66547902],
    std=[37.10216765, 34.61650149, 33.70191772],
    to_rgb=True,
)
model = dict(head=dict(num_classes=45))
train_pipeline = _base_.train_pipeline
train_pipeline[4]["hparams"]["pad_val"] = [88, 97, 94]  # the mean, BGR
scenes = dict(name="nwpu", data_root="data/nwpu_resisc45", train_share=0.7)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **scenes))
val_dataloader = dict(dataset=scenes)
test_dataloader = val_dataloader
