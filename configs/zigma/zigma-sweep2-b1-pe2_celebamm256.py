# MM-CelebA-HQ at 256 x 256 (latents 4 x 32 x 32) by CLIP's text features, scanned forward and backward: the baseline.
_base_ = "zigma-zigzag8-b1-pe2_celebamm256.py"
model = dict(network=dict(arch="sweep2_b1_pe2"))
