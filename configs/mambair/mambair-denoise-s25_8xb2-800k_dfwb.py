# MambaIR, color images with Gaussian noise of sigma 25: starts from sigma 15 (load_from).
_base_ = [
    "../_base_/restoration/runtime.py",
    "../_base_/restoration/dfwb_noise_s25.py",
    "../_base_/restoration/adam_800k.py",
]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIR", arch="denoise_color"),
    loss=dict(type="PixelLoss", kind="charbonnier"),
    tiling=dict(tile=200, blend=False),  # as published; blend=True leaves no seams
)
