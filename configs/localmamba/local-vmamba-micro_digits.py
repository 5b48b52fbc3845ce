# A small LocalVMamba on scikit-learn's digits, not searched: rows and windows of 2 in every layer of three stages.
_base_ = "../_base_/classification/digits_run.py"

model = dict(
    backbone=dict(
        type="mamba_vision.LocalVMamba",
        arch=dict(dims=24, depths=(1, 2, 1)),
        in_channels=1,
        out_indices=(2,),
        mixer=dict(d_state=4),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(in_channels=96),
)
