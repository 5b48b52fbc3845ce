# Rows and windows of 2 in every layer.
_base_ = "./local-vim-tiny_8xb128_in1k.py"

model = dict(backbone=dict(arch="tiny_wo_search"))
