_base_ = "../_base_/classification/scenes_aid.py"

model = dict(backbone=dict(arch="large"), head=dict(in_channels=256))
