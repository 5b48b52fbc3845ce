# The supernet: narrower, all eight directions in every layer, 100 epochs. For tools/search.py.
_base_ = "./local-vim-tiny_8xb128_in1k.py"

recipe = "local-vim-tiny_8xb128_in1k.py"
model = dict(backbone=dict(arch="supernet"), head=dict(in_channels=128))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, by_epoch=True, begin=0, end=20),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=True, begin=20, end=100, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=100)
