_base_ = "../_base_/classification/scenes_uc.py"

model = dict(backbone=dict(arch="base"), head=dict(in_channels=192))
