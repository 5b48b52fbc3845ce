# Super-resolution x3 and x4, which start from x2: 250k iterations.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.99), weight_decay=0))
param_scheduler = dict(type="MultiStepLR", milestones=[125_000, 200_000, 225_000, 237_500], gamma=0.5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=250_000, val_interval=5000)
