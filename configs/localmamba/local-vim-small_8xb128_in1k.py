# The paper's LocalVim-S, with LocalVim-T's directions. The published code has a second factory of this name, which wins
# when its file is imported, with rows and windows of 2 in every layer: arch="small_wo_search". Weights fit either.
_base_ = "./local-vim-tiny_8xb128_in1k.py"

model = dict(backbone=dict(arch="small"), head=dict(in_channels=384))
