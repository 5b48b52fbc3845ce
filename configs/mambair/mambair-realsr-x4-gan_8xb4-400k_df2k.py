# Real super-resolution x4, second stage: against a discriminator, from the first stage's weights (load_from).
_base_ = ["../_base_/restoration/runtime.py", "../_base_/restoration/df2k_real_x4.py"]
model = dict(
    type="AdversarialRestorer",
    network=dict(type="MambaIR", arch="realsr_x4"),
    discriminator=dict(type="UNetDiscriminator"),
    loss=dict(type="PixelLoss", kind="l1"),
    perceptual=dict(
        type="PerceptualLoss",
        init_cfg=dict(type="Pretrained", checkpoint="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"),
    ),
    adversarial_weight=0.1,
    tiling=dict(tile=200),
)
optim_wrapper = dict(
    constructor="RestorerOptimWrapperConstructor",
    network=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.99))),
    discriminator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.99))),
)
param_scheduler = dict(type="MultiStepLR", milestones=[200_000, 300_000], gamma=0.5, by_epoch=False)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=400_000, val_interval=5000)
# PSNR falls in this stage: what counts is what it looks like, so the last weights are kept, too.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
