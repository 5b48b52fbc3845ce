_base_ = "../_base_/classification/scenes_nwpu.py"

model = dict(backbone=dict(arch="large"), head=dict(in_channels=256))
