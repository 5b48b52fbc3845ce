_base_ = [
    "../_base_/segmentation/ade20k_512.py",
    "../_base_/segmentation/upernet.py",
    "../_base_/segmentation/adamw_160k.py",
    "../_base_/segmentation/runtime.py",
]

model = dict(
    backbone=dict(
        type="mamba_vision.Vim",
        arch="tiny",
        img_size=512,
        class_token="none",
        out_type="featmap",
        out_indices=(5, 11, 17, 23),
        features="hidden",
        residual_in_fp32=False,
        pyramid=True,
        norm_cfg=dict(type="SyncBN"),
        # the published classifier, in checkpoints/; only the pyramid starts anew
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/vim_t_midclstok_76p1acc.pth", skip=["pyramid.**"]),
    ),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=192),
    auxiliary_head=dict(in_channels=192),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
train_dataloader = dict(batch_size=8)

# The published layer decay of 0.92 only ever reached the embeddings (its helper looks for other names): 0.92^25.
embedding = dict(lr_mult=0.92**25)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.1),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={"backbone.patch_embed": embedding, "backbone.pos_embed": dict(decay_mult=0.0, **embedding)},
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=60000),
]
train_cfg = dict(max_iters=60000, val_interval=6000)
default_hooks = dict(checkpoint=dict(interval=6000))
auto_scale_lr = dict(base_batch_size=32)
