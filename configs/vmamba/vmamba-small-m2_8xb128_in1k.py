_base_ = "../_base_/classification/vmamba.py"

model = dict(backbone=dict(arch="small_m2", drop_path_rate=0.3), head=dict(in_channels=768))
