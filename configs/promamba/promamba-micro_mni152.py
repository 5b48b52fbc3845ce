# A small ProMamba on coronal slices of the MNI152 brain, which comes with nilearn: a prompt chooses a piece of white
# matter, without one all of it is meant.
_base_ = "../_base_/prompts/runtime.py"
train_pipeline = [
    dict(type="LoadPromptImage"),
    dict(type="ResizePrompted", size=192),  # masks come out at a quarter of this: too coarse for 96
    dict(type="AugmentPrompted", scale=(0.9, 1.1), jitter=0.1),
    dict(type="SimulatePrompts", mix=dict(box=0.5, point=0.5)),  # without prompts: the entries that say so
    dict(type="PackPrompted"),
]
test_pipeline = [
    dict(type="LoadPromptImage"),
    dict(type="ResizePrompted", size=192),
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted", original_mask=True),
]
model = dict(
    type="PromptSegmentor",
    network=dict(
        type="ProMamba",
        arch=dict(embed_dims=48, num_layers=4, fusion_blocks=2, decoder_channels=32, stem_channels=(12, 24, 32)),
        mixer=dict(d_state=4),  # 16 takes three times as long on a CPU
        encoder=dict(img_size=192),
    ),
    loss=dict(type="StructureLoss", window=15),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="RepeatDataset",
        times=2,
        dataset=dict(type="BrainSlicePieces", split="train", pipeline=train_pipeline),
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="BrainSlicePieces", split="test", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="MambaOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=2, end=20, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=5)
