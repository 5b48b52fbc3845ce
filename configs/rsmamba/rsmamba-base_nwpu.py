_base_ = "../_base_/classification/scenes_nwpu.py"

model = dict(backbone=dict(arch="base"), head=dict(in_channels=192))
