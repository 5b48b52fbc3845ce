_base_ = "../_base_/classification/vim.py"

model = dict(backbone=dict(arch="small", drop_path_rate=0.05), head=dict(in_channels=384))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
