# Denoising of sigma 15 and JPEG of quality 40: 1600k iterations.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=2e-4, betas=(0.9, 0.99), weight_decay=0))
param_scheduler = dict(
    type="MultiStepLR", milestones=[800_000, 1_200_000, 1_400_000, 1_500_000], gamma=0.5, by_epoch=False
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=1_600_000, val_interval=5000)
