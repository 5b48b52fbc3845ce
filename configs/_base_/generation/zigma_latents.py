# ZigMa on latents of Stable Diffusion's autoencoder, as published: AdamW at 1e-4 without warm-up or decay, 400k steps.
# Published code clips gradients after the step, which does nothing: there is no clipping here. fp16: --amp.
_base_ = "runtime.py"

model = dict(
    type="mamba_vision.DiffusionGenerator",
    network=dict(type="mamba_vision.ZigMa"),
    transport=dict(path="linear", prediction="velocity"),
    sampler=dict(method="dopri5", num_steps=50, atol=1e-6, rtol=1e-3),
    scale=0.18215,
)
train_dataloader = dict(
    batch_size=20,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="mamba_vision.LatentShards",
        pipeline=[dict(type="mmpretrain.PackInputs", algorithm_keys=("text",))],
    ),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0),
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=400_000)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10_000, max_keep_ckpts=3))
log_processor = dict(by_epoch=False)
