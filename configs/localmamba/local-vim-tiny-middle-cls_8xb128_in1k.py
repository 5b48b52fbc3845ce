# A class token in the middle of every sequence, in place of rotary positions and the mean.
_base_ = "./local-vim-tiny_8xb128_in1k.py"

model = dict(backbone=dict(arch="tiny_middle_cls_token"))
