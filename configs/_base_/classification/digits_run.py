# What trainings on the digits share besides the data: hooks of a CPU run, the head, curves in progress.png.
_base_ = ["./digits_32.py", "./runtime.py"]

model = dict(
    type="ImageClassifier",
    head=dict(
        type="LinearClsHead",
        num_classes=10,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02, bias=0.0),
    ),
)
shift = [dict(type="RandomCrop", crop_size=32, padding=2), dict(type="PackInputs")]
train_dataloader = dict(dataset=dict(pipeline=shift))
optim_wrapper = dict(
    optimizer=dict(lr=4e-3),
    paramwise_cfg=dict(custom_keys={"pos_embed": dict(decay_mult=0.0), "cls_token": dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=2, end=30, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30, val_interval=1)
default_hooks = dict(
    logger=dict(interval=24),
    checkpoint=dict(type="mamba_vision.AtomicCheckpointHook", save_best="accuracy/top1", max_keep_ckpts=1),
)
custom_hooks = [
    dict(type="mamba_vision.FiniteLossHook"),
    dict(type="mamba_vision.InterruptHook"),
    dict(type="mamba_vision.ProgressHook", metric="accuracy/top1"),
    dict(type="mamba_vision.ProgressPlotHook", metric="accuracy/top1"),
]
