# A small VMamba on scikit-learn's digits: three stages of 8 x 8, 4 x 4 and 2 x 2 tokens.
_base_ = "../_base_/classification/digits_run.py"

model = dict(
    backbone=dict(
        type="mamba_vision.VMamba",
        arch=dict(dims=24, depths=(2, 2, 2), ssm_ratio=1.0),
        in_channels=1,
        out_indices=(2,),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(in_channels=96),
)
