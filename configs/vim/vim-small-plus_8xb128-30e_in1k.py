# Finer steps between patches (stride 8, 730 tokens), fine-tuned from the published weights at stride 16, which go to
# checkpoints/. Positions are resampled as in the published code, see `position_resize`.
_base_ = "./vim-small_8xb64_in1k.py"

model = dict(
    backbone=dict(arch="small+", position_resize="published", drop_path_rate=0.0),
    init_cfg=dict(type="mamba_vision.Pretrained", checkpoint="checkpoints/vim_s_midclstok_80p5acc.pth"),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=1e-8))
param_scheduler = [dict(type="ConstantLR", factor=1.0, by_epoch=True, begin=0, end=30)]
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=1024)
