_base_ = [
    "../_base_/volumes/umamba.py",
    "../_base_/volumes/amos22_mr.py",
    "../_base_/volumes/sgd_250k.py",
    "../_base_/volumes/runtime.py",
]
model = dict(
    plan={{_base_.plan}},
    network=dict(arch="abdomen_mr", placement="enc"),
    inferer=dict(roi_size={{_base_.patch_size}}),
)
