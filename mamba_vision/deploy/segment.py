"""Segmenting pictures and scans with an exported model: prepared and put together as PyTorch's tools do it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.deploy.model_file import ModelFile, ModelFileError
from mamba_vision.deploy.pictures import prepare, read_rgb, resize
from mamba_vision.deploy.windows import mirrored, sliding_window

Progress = Callable[[int, int], None]


class PictureSegmentor:
    """Finds the class of every pixel; the arguments are those of `ModelFile`."""

    def __init__(self, model: str | Path | ModelFile, **options) -> None:
        self.model = model if isinstance(model, ModelFile) else ModelFile(model, **options)
        self.model.expect("segmentation")
        self.channels = next(iter(self.model.inputs.values()))[1]

    def __call__(self, picture: str | Path | np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """(H, W) uint8 or uint16, numbers of classes, of a file or an array (H, W, C) uint8, RGB or gray.

        Raises:
            FileNotFoundError, ValueError: no such picture, a damaged one, or one that the model cannot take.
        """
        if not isinstance(picture, np.ndarray):
            picture = read_rgb(picture, self.channels)
        x = prepare(picture, self.model.info["preprocess"])
        logits = resize(self._logits(x, progress), picture.shape[:2])
        mask = logits.argmax(0)
        return mask.astype(np.uint8 if len(logits) <= 256 else np.uint16)

    def _logits(self, x: np.ndarray, progress: Progress | None) -> np.ndarray:
        """(K, h, w) of the prepared picture, by windows where the model was tested so, or takes one size alone."""
        window = self.model.info.get("window")
        fixed = (self.model.side(2), self.model.side(3))
        if window is None and None in fixed:
            return self.model(x)[0]
        size = tuple(window["size"]) if window else fixed
        stride = tuple(window["stride"]) if window else tuple(max(1, side // 2) for side in fixed)
        sides = tuple(min(pair) if None in fixed else pair[0] for pair in zip(size, x.shape[2:]))
        classes = self.model(np.zeros((1, x.shape[1], *sides), np.float32)).shape[1]
        out = np.zeros((classes, *x.shape[2:]), np.float32)
        sliding_window(x[0], self.model, sides, stride, out, lambda side: np.ones(side, np.float32), progress)
        return out


@dataclass(frozen=True)
class Segmented:
    """A segmented scan.

    Attributes:
        mask: (X, Y, Z) uint8 or uint16, in the grid of the scan as it is stored.
        labels: names and values, background first.
        volume: the scan, a mamba_vision.volumes.Volume.
    """

    mask: np.ndarray
    labels: dict[str, int]
    volume: Any

    def save(self, path: str | Path) -> Path:
        """Write the mask as NIfTI in the scan's own grid, whole or not at all."""
        from mamba_vision.volumes import write_labels

        return write_labels(path, self.mask, self.volume, self.labels)


class ScanSegmentor:
    """Finds the label of every voxel of CT and MR scans; needs nibabel and SciPy, and pydicom for DICOM.

    The arguments are those of `ModelFile`.
    """

    def __init__(self, model: str | Path | ModelFile, **options) -> None:
        from mamba_vision.volumes import Plan

        self.model = model if isinstance(model, ModelFile) else ModelFile(model, **options)
        self.model.expect("volume_segmentation")
        if not self.model.info.get("plan"):
            raise ModelFileError(
                f"{self.model.path}: has no plan, so that it takes windows and not scans; export the work folder of a "
                "training, or its configuration and checkpoint"
            )
        self.plan = Plan.from_dict(self.model.info["plan"], str(self.model.path))
        axes = self.model.info.get("mirror_axes", [])
        if not isinstance(axes, list) or not set(axes) <= {0, 1, 2}:
            raise ModelFileError(f"metadata: mirror_axes is {axes!r}, expected some of 0, 1, 2")
        self.mirror_axes = tuple(axes)

    def __call__(
        self,
        scan: str | Path | Sequence[str | Path],
        tta: str = "flips",
        overlap: float = 0.5,
        progress: Progress | None = None,
    ) -> Segmented:
        """Segment a scan.

        Args:
            scan: a file, a DICOM folder, a list with one of these a channel, or a Volume.
            tta: 'flips' averages over all mirrored copies along the axes that training mirrored, 'none' predicts once.
            overlap: of neighbouring windows, as a fraction of their side.
            progress: called with windows done and all windows.

        Raises:
            VolumeError: a scan that cannot be read, or has other channels than the model.
            ValueError: an unknown option.
        """
        from mamba_vision.volumes import Volume, preprocess, read_volume, restore_labels

        if tta not in ("flips", "none"):
            raise ValueError(f"tta: expected 'flips' or 'none', found {tta!r}")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap: expected a share from 0 to below 1, found {overlap!r}")
        plan = self.plan
        volume = scan if isinstance(scan, Volume) else read_volume(scan, fix_geometry=plan.fix_geometry)
        case = preprocess(volume, plan)  # refuses other channels
        logits = np.zeros((plan.num_outputs, *case.image.shape[1:]), np.float32)
        intervals = [max(1, int(side * (1 - overlap))) for side in plan.patch_size]
        predict = mirrored(self.model, self.mirror_axes if tta == "flips" else ())
        sliding_window(case.image, predict, plan.patch_size, intervals, logits, progress=progress)
        return Segmented(restore_labels(logits, case.geometry, plan), dict(plan.labels), volume)
