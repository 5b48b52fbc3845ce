# MambaDFuse, CT and MRI slices of the Whole Brain Atlas (Harvard): ten times the step size, smaller crops, other
# weights of the losses.
_base_ = ["./mambadfuse-vif_2xb6-10k_msrs.py"]
train_pipeline = [
    dict(type="LoadFusionPair"),
    dict(type="RandomFusionCrop", size=64),
    dict(type="RandomFlipTurn", keys=["first", "second"]),
    dict(type="PackFusionPair"),
]
model = dict(network=dict(arch="ct_mri"), loss=dict(texture=100.0, structure=50.0, adaptive=False))
train_dataloader = dict(dataset=dict(layout="harvard_ct", pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(layout="harvard_ct"))
test_dataloader = dict(dataset=dict(layout="harvard_ct"))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
