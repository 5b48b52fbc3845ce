_base_ = "../_base_/classification/scenes_aid.py"

model = dict(backbone=dict(arch="base"), head=dict(in_channels=192))
