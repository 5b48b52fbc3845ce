# MambaIRv2, super-resolution x4: starts from x2 (load_from), patches of 48 x 48, 32 in a batch on 8 GPUs.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/df2k_x4.py", "../_base_/restoration/adam_250k.py"]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIRv2", arch="base_x4"),
    loss=dict(type="PixelLoss", kind="l1"),
    tiling=dict(tile=200, blend=False),  # as published; blend=True leaves no seams
)
