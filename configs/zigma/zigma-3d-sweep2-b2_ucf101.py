# UCF101, 16 frames of 256 x 256 (latents 16 x 4 x 32 x 32), by class: all tokens forward and backward, the baseline.
_base_ = "zigma-3d-zigzag8sst-b2_ucf101.py"
model = dict(network=dict(arch="3d_sweep2_b2"))
