# A small Vim on scikit-learn's digits: 8 x 8 patches, four blocks, the mean over patches instead of a class token.
_base_ = "../_base_/classification/digits_run.py"

model = dict(
    backbone=dict(
        type="mamba_vision.Vim",
        arch=dict(embed_dims=32, num_layers=4),
        class_token="none",
        out_type="avg_featmap",
        img_size=32,
        patch_size=4,
        in_channels=1,
        mixer=dict(d_state=4),  # 16 takes three times as long on a CPU
    ),
    head=dict(in_channels=32),
)
