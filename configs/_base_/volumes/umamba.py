# U-Mamba as a segmentor of volumes: soft Dice + cross-entropy at every resolution, prediction by sliding window.
model = dict(
    type="VolumeSegmentor",
    data_preprocessor=dict(type="VolumePreprocessor"),
    network=dict(type="UMamba", placement="bot", deep_supervision=True),
    loss=dict(type="DeepSupervisionLoss", loss=dict(type="DiceCELoss", batch_dice=False)),
    inferer=dict(type="SlidingWindowInferer", sw_batch_size=2, overlap=0.5, mode="gaussian", sigma_scale=0.125),
    mirror_axes=(),
)
