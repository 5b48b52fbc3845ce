# Published without moving average.
_base_ = "../_base_/classification/vmamba.py"

model = dict(backbone=dict(arch="vanilla_tiny", drop_path_rate=0.2), head=dict(in_channels=768))
custom_hooks = []
