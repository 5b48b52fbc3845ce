# LandscapeHQ at 1024 x 1024 (latents 4 x 128 x 128), without condition: landscape1024_0210000.pt.
_base_ = "../_base_/generation/zigma_latents.py"
model = dict(network=dict(arch="s1024_zigzag8_b2_old"))
train_dataloader = dict(dataset=dict(data_root="data/landscapehq_1024", latent="latent_hr.npy"))
