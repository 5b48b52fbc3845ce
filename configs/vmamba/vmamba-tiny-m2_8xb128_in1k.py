_base_ = "../_base_/classification/vmamba.py"

model = dict(backbone=dict(arch="tiny_m2", drop_path_rate=0.2), head=dict(in_channels=768))
