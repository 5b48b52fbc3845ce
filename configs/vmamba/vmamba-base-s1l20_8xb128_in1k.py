_base_ = "../_base_/classification/vmamba.py"

model = dict(backbone=dict(arch="base_s1l20", drop_path_rate=0.5), head=dict(in_channels=1024))
