# LSUN churches at 256 x 256 (latents 4 x 32 x 32), without condition: churches256_0280000.pt.
_base_ = "../_base_/generation/zigma_latents.py"
model = dict(network=dict(arch="zigzag8_b1_pe2"))
train_dataloader = dict(
    batch_size=3,
    dataset=dict(data_root="data/churches256_uncond", latent="img_feature256.npy"),
)
