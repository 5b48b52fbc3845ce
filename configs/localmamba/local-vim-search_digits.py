# The supernet of local-vim_digits.py: two or three minutes on a CPU core. Windows of 2 and 4 divide its 8 x 8 tokens.
_base_ = "./local-vim_digits.py"

recipe = "local-vim_digits.py"
model = dict(
    backbone=dict(
        search=True,
        candidates=("h", "h_flip", "v", "v_flip", "w2", "w2_flip", "w4", "w4_flip"),
    ),
)
train_dataloader = dict(batch_size=32)
# In 376 iterations the direction weights would hardly move at the network's own rate; published searches are longer.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"multi_scan.weights": dict(lr_mult=10.0)}))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=1, end=8, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8, val_interval=4)
