# Denoising of sigma 25 and 50, JPEG of quality 10 and 30, which start from 15 and 40: 800k iterations.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.99), weight_decay=0))
param_scheduler = dict(type="MultiStepLR", milestones=[400_000, 600_000, 700_000, 750_000], gamma=0.5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=800_000, val_interval=5000)
