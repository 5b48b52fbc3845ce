_base_ = "../_base_/classification/vmamba.py"

model = dict(backbone=dict(arch="base_s2l15", drop_path_rate=0.6), head=dict(in_channels=1024))
