# Real super-resolution x4, first stage: pixel loss. The authors have not published theirs; this follows Real-ESRGAN.
_base_ = [
    "../_base_/restoration/runtime.py",
    "../_base_/restoration/df2k_real_x4.py",
    "../_base_/restoration/adam_500k.py",
]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIR", arch="realsr_x4"),
    loss=dict(type="PixelLoss", kind="l1"),
    tiling=dict(tile=200),
)
