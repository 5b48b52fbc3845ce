# MambaIR-light, super-resolution x3: 32 patches in a batch on 8 GPUs, from scratch.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/df2k_x3.py", "../_base_/restoration/adam_500k.py"]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIR", arch="lightsr_x3"),
    loss=dict(type="PixelLoss", kind="l1"),
    tiling=dict(tile=200, blend=False),  # as published; blend=True leaves no seams
)
