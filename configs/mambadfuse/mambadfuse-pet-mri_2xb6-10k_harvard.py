# MambaDFuse, PET and MRI slices of the Whole Brain Atlas (Harvard).
_base_ = ["./mambadfuse-ct-mri_2xb6-10k_harvard.py"]
model = dict(network=dict(arch="pet_mri"))
train_dataloader = dict(dataset=dict(layout="harvard_pet"))
val_dataloader = dict(dataset=dict(layout="harvard_pet"))
test_dataloader = dict(dataset=dict(layout="harvard_pet"))
