# Of Vim-B the weights are published, the recipe is not: this is Vim-S's.
_base_ = "./vim-small_8xb64_in1k.py"

model = dict(backbone=dict(arch="base"), head=dict(in_channels=768))
