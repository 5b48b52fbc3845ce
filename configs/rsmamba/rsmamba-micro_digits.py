# A small RSMamba on scikit-learn's digits: 8 x 8 patches, read forward, backward and shuffled, four layers.
_base_ = "../_base_/classification/digits_run.py"

model = dict(
    backbone=dict(
        type="mamba_vision.RSMamba",
        arch=dict(embed_dims=32, num_layers=4, feedforward_channels=64),
        img_size=32,
        patch_size=4,
        in_channels=1,
    ),
    head=dict(in_channels=32),
)
