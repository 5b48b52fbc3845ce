# MambaIR, gray JPEG images of quality 10: starts from quality 40 (load_from).
_base_ = [
    "../_base_/restoration/runtime.py",
    "../_base_/restoration/dfwb_jpeg_q10.py",
    "../_base_/restoration/adam_800k.py",
]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIR", arch="jpeg_gray"),
    loss=dict(type="PixelLoss", kind="charbonnier"),
    tiling=dict(tile=200, blend=False),  # as published; blend=True leaves no seams
)
