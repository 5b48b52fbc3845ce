"""A trained work folder and scans whose right segmentation is known, for the tests of segmentation.

The network is a 1x1x1 convolution: class k where the intensity is nearest to k. So the mask can
be told from the scan, voxel by voxel, whatever its grid.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

LABELS = {"background": 0, "gray": 1, "white": 4}
SPACING = (2.0, 1.0, 1.0)  # along the network's axes: up, right, front

_CONFIG = """
default_scope = 'mamba_vision'
work_dir = '{{{{ fileDirname }}}}'
model = dict(
    type='VolumeSegmentor',
    plan=f'{{work_dir}}/plan.json',
    data_preprocessor=dict(type='VolumePreprocessor'),
    network=dict(type='torch.nn.Conv3d', in_channels={}, out_channels={}, kernel_size=1),
    inferer=dict(type='SlidingWindowInferer', roi_size={}, sw_batch_size=1, overlap=0.5),
    mirror_axes=())
train_pipeline = [
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=0),
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=2),
]
train_dataloader = dict(dataset=dict(type='VolumeDataset', pipeline=train_pipeline))
"""


def make_work_dir(
    folder: Path,
    channels: tuple[str, ...] = ("T1",),
    labels: dict[str, int] = LABELS,
    patch: tuple[int, int, int] = (8, 16, 16),
) -> Path:
    """plan.json, config.py and a best checkpoint, as planning and training leave them.

    Class k is the intensity k: its logit is 2 k x - k^2, the greatest where x is nearest to k.
    """
    folder.mkdir(parents=True)
    plan = {
        "dataset": "blobs", "channels": list(channels), "labels": labels, "axes": [2, 0, 1], "spacing": SPACING,
        "patch_size": list(patch), "batch_size": 2, "normalization": ["none"] * len(channels),
        "use_mask": [False] * len(channels),
        "intensities": [{"mean": 1.0, "std": 1.0, "percentile_00_5": 0.0, "percentile_99_5": 2.0}] * len(channels),
        "network": {"type": "torch.nn.Conv3d"},
        "median_shape": [12, 30, 26], "reasons": {},
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "config.py").write_text(_CONFIG.format(len(channels), len(labels), patch))
    classes = torch.arange(len(labels), dtype=torch.float32)
    weight = torch.zeros(len(labels), len(channels), 1, 1, 1)
    weight[:, 0, 0, 0, 0] = 2 * classes
    state = {"network.weight": weight, "network.bias": -(classes**2)}
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, folder / "best_dice_epoch_3.pth")
    return folder


def make_scan(shape=(30, 26, 12), spacing=(1.0, 1.0, 2.0), affine: np.ndarray | None = None) -> nib.Nifti1Image:
    """Intensity 1 in a box, 2 in a smaller box inside, 0 around."""
    array = np.zeros(shape, np.float32)
    array[4:-6, 5:-3, 2:-4] = 1
    array[8:-12, 8:-10, 4:-6] = 2
    image = nib.Nifti1Image(array, np.diag([*spacing, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    return image


def expected_mask(image: nib.Nifti1Image) -> np.ndarray:
    """Label values of the blobs."""
    return np.array([0, 1, 4], np.uint8)[np.rint(np.asarray(image.dataobj)).astype(int)]
