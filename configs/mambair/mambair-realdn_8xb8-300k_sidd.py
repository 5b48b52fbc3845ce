# MambaIRUNet, real noise: Restormer's recipe, patches that grow from 128 to 384 while batches shrink, mixup.
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/sidd.py"]
model = dict(
    type="ImageRestorer",
    network=dict(type="MambaIRUNet", arch="realdn"),
    loss=dict(type="PixelLoss", kind="l1"),
    mixup=0.5,
    # (until iteration, images of each GPU's batch, side of the patches)
    progressive=[(92_000, 8, 128), (156_000, 5, 160), (204_000, 4, 192), (240_000, 2, 256), (276_000, 1, 320),
                 (300_000, 1, 384)],
)  # fmt: skip
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = dict(type="CosineAnnealingLR", begin=92_000, end=300_000, eta_min=1e-6, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=300_000, val_interval=4000)
