# MambaIRv2, super-resolution x2: patches of 64 x 64 before enlarging, 32 in a batch on 8 GPUs.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/df2k_x2.py", "../_base_/restoration/adam_500k.py"]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIRv2", arch="large_x2"),
    loss=dict(type="PixelLoss", kind="l1"),
    tiling=dict(tile=200, blend=False),  # as published; blend=True leaves no seams
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
