_base_ = "../_base_/classification/scenes_aid.py"

model = dict(backbone=dict(arch="huge"), head=dict(in_channels=320))
