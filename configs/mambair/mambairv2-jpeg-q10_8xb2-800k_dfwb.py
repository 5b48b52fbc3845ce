# MambaIRv2, gray JPEG images of quality 10: starts from quality 40 (load_from).
_base_ = [
    "../_base_/restoration/runtime.py",
    "../_base_/restoration/dfwb_jpeg.py",
    "../_base_/restoration/adam_800k.py",
]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIRv2", arch="jpeg_gray"),
    loss=dict(type="PixelLoss", kind="charbonnier"),
    tiling=dict(tile=200, blend=False),  # as published; blend=True leaves no seams
)
quality = 10
test_pipeline = [dict(type="LoadImagePair", channels=1), dict(type="PackImagePair")]
train_dataloader = dict(dataset=dict(quality=quality))
val_dataloader = dict(dataset=dict(quality=quality))
test_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(type="RestorationDataset", layout=layout, quality=quality, pipeline=test_pipeline, test_mode=True)
            for layout in ("classic5", "live1")
        ],
    ),
)
