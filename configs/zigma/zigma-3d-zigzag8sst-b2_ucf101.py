# UCF101, 16 frames of 256 x 256 (latents 16 x 4 x 32 x 32), by class: scans inside frames twice, then along time.
_base_ = "../_base_/generation/zigma_latents.py"
model = dict(network=dict(arch="3d_zigzag8sst_b2"))
train_dataloader = dict(
    dataset=dict(data_root="data/ucf101", latent="frame_feature256.npy", label="cls_id.cls"),
)
