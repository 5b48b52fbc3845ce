# Tiles of 32 x 32 pixels from scikit-learn's two photographs, by photograph: colour pictures with nothing to download.
_base_ = "zigma-tiny_digits.py"

epochs = 40
model = dict(
    network=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=8, patch_size=4, img_size=32),
        in_channels=3,
        num_classes=2,
    ),
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
train_dataloader = dict(dataset=dict(name="photos", size=32, stride=8))
val_dataloader = dict(dataset=dict(name="photos", size=32, stride=8))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=2, end=epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs)
