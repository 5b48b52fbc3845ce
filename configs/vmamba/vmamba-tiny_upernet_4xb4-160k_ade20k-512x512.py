# VMamba-T is the published T[s1l8]; the published batch of 16 on four GPUs.
_base_ = "./vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py"

train_dataloader = dict(batch_size=4)
