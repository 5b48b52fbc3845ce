# Super-resolution x2 and light super-resolution: 500k iterations, halved four times.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=2e-4, betas=(0.9, 0.99), weight_decay=0))
param_scheduler = dict(type="MultiStepLR", milestones=[250_000, 400_000, 450_000, 475_000], gamma=0.5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=500_000, val_interval=5000)
