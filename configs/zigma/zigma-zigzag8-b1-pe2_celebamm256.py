# MM-CelebA-HQ at 256 x 256 (latents 4 x 32 x 32) by CLIP's text features, zigzag scans.
_base_ = "../_base_/generation/zigma_latents.py"
model = dict(network=dict(arch="zigzag8_b1_pe2", text_channels=768))
train_dataloader = dict(
    dataset=dict(data_root="data/celebamm256", latent="img_feature256.npy", text="caption_clip_feature.npy"),
)
