# MambaDFuse, SPECT and MRI slices of the Whole Brain Atlas (Harvard).
_base_ = ["./mambadfuse-ct-mri_2xb6-10k_harvard.py"]
model = dict(network=dict(arch="spect_mri"))
train_dataloader = dict(dataset=dict(layout="harvard_spect"))
val_dataloader = dict(dataset=dict(layout="harvard_spect"))
test_dataloader = dict(dataset=dict(layout="harvard_spect"))
