"""Segmenting scans with an exported model: prepared, put together and written as tools/segment.py does it.

Layouts: image (C, *S), logits (K, *S), S along the network's axes; masks (X, Y, Z) as the scan is stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.deploy.model_file import ModelFile, ModelFileError
from mamba_vision.deploy.windows import mirrored, sliding_window
from mamba_vision.utils.scratch_array import ScratchArray, choose_scratch

Progress = Callable[[int, int], None]
LOWRES = "_lowres"  # behind the name of a cascade's second file: the network that goes first
_SLAB_MEMORY = 2**29  # bytes, at most, to bring logits back into the scan's grid; more makes it no faster


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
        """Write the mask in the scan's own grid, whole or not at all: as NIfTI, or as a picture of class numbers."""
        from mamba_vision.volumes import write_labels
        from mamba_vision.volumes.pictures import picture_ending, write_picture_labels

        write = write_picture_labels if picture_ending(path) else write_labels
        return write(path, self.mask, self.volume, self.labels)


class ScanSegmentor:
    """Finds the label of every voxel of CT and MR scans; needs nibabel and SciPy, and pydicom for DICOM.

    Args:
        model: a file, or a ModelFile.
        lowres: for a cascade, the model of low resolution, whose findings this one is given; default: the file beside,
            MODEL_lowres.onnx, which tools/export_onnx.py writes.
        options: of `ModelFile`, for both.

    Raises:
        ModelFileError: a file cannot be used, or a low resolution is missing, superfluous or another's.
    """

    def __init__(
        self, model: str | Path | ModelFile, lowres: "str | Path | ScanSegmentor | None" = None, **options
    ) -> None:
        self.model = model if isinstance(model, ModelFile) else ModelFile(model, **options)
        self.plan, self.mirror_axes, self.steps = scan_settings(self.model)
        self.lowres = None
        if self.plan.cascaded:
            first = lowres if lowres is not None else lowres_file(self.model.path)
            self.lowres = first if isinstance(first, ScanSegmentor) else ScanSegmentor(first, **options)
            check_lowres(self.model.path, self.plan, self.lowres.model.path, self.lowres.plan)
        elif lowres is not None:
            raise ModelFileError(f"{self.model.path}: is no cascade, so that it has no use for {lowres}")

    def __call__(
        self,
        scan: str | Path | Sequence[str | Path],
        tta: str = "flips",
        overlap: float = 0.5,
        progress: Progress | None = None,
        max_memory: int | None = None,
        scratch: str | Path | None = None,
        postprocessing: bool = True,
    ) -> Segmented:
        """Segment a scan.

        Args:
            scan: a file, a DICOM folder, a list with one of these a channel, or a Volume.
            tta: 'flips' averages over all mirrored copies along the axes that training mirrored, 'none' predicts once.
            overlap: of neighbouring windows, as a fraction of their side.
            progress: called with windows done and all windows.
            max_memory: bytes of main memory for the logits; beyond it they go to a temporary file. Default: half of
                what is free.
            scratch: folder of that file; None is the system's.
            postprocessing: apply the clean-up that was chosen by validation, where the model has one.

        Raises:
            VolumeError: a scan that cannot be read, or has other channels than the model.
            ValueError: an unknown option.
            OSError: no room for the temporary file.
        """
        from mamba_vision.volumes import Volume, preprocess, read_volume, restore_labels
        from mamba_vision.volumes.components import apply_steps

        if tta not in ("flips", "none"):
            raise ValueError(f"tta: expected 'flips' or 'none', found {tta!r}")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap: expected a share from 0 to below 1, found {overlap!r}")
        plan = self.plan
        volume = scan if isinstance(scan, Volume) else read_volume(scan, fix_geometry=plan.fix_geometry)
        case = preprocess(volume, plan)  # refuses other channels
        image, geometry = case.image, case.geometry
        del case
        if self.lowres is not None:
            found = self.lowres(volume, tta, overlap, None, max_memory, scratch, postprocessing=False)
            image = self._with_findings(image, found.mask, geometry)
            del found
        shape = (plan.num_outputs, *geometry.resampled_shape)
        intervals = [max(1, int(side * (1 - overlap))) for side in plan.patch_size]
        predict = mirrored(self.model, self.mirror_axes if tta == "flips" else ())
        with ScratchArray(shape, choose_scratch(shape, max_memory, scratch)) as logits:
            sliding_window(
                image, predict, plan.patch_size, intervals, logits.array, progress=progress, finished=logits.release
            )
            del image
            memory = min(max_memory or _SLAB_MEMORY, _SLAB_MEMORY)
            mask = restore_labels(logits.array, geometry, plan, memory, lambda *_: logits.release(shape[1]))
        if postprocessing:
            apply_steps(mask, self.steps)
        return Segmented(mask, dict(plan.labels), volume)

    def _with_findings(self, image: np.ndarray, mask: np.ndarray, geometry: Any) -> np.ndarray:
        """The image with what the low resolution has found behind it, one-hot without background."""
        from mamba_vision.volumes.preprocess import prepare_labels

        classes = prepare_labels(mask, geometry, self.plan)
        both = np.empty((len(image) + self.plan.num_classes - 1, *image.shape[1:]), np.float32)
        both[: len(image)] = image
        for number in range(1, self.plan.num_classes):
            both[len(image) + number - 1] = classes == number
        return both


def scan_settings(model: ModelFile) -> tuple[Any, tuple[int, ...], tuple[Any, ...]]:
    """Of a model for scans: its plan, the axes to mirror, and the clean-up chosen by validation.

    Raises:
        ModelFileError, VolumeError: it is of another kind, or says of itself what cannot be.
    """
    from mamba_vision.volumes import Plan
    from mamba_vision.volumes.components import steps_from_json

    model.expect("volume_segmentation")
    if not isinstance(model.info.get("plan"), dict):
        raise ModelFileError(
            f"{model.path}: has no plan, so that it takes windows and not scans; export the work folder of a "
            "training, or its configuration and checkpoint"
        )
    plan = Plan.from_dict(model.info["plan"], str(model.path))
    axes = model.info.get("mirror_axes", [])
    if not isinstance(axes, list) or any(axis not in (0, 1, 2) for axis in axes):
        raise ModelFileError(f"{model.path}: metadata: mirror_axes is {axes!r}, expected some of 0, 1, 2")
    return plan, tuple(axes), steps_from_json(model.info.get("postprocessing") or [], plan.labels, model.path)


def lowres_file(path: Path) -> Path:
    """Where the first network of a cascade is expected.

    Raises:
        FileNotFoundError: it is not there.
    """
    found = path.with_name(f"{path.stem}{LOWRES}{path.suffix}")
    if not found.is_file():
        raise FileNotFoundError(
            f"{path}: the second network of a cascade, which needs what the first finds; not found as {found.name} "
            "beside it. Put it there, as tools/export_onnx.py writes both, or name it (--lowres)"
        )
    return found


def check_lowres(path: Path, plan: Any, first: Path, plan_of_first: Any) -> None:
    """Raise ModelFileError unless the second model can be the first network of a cascade."""
    if plan_of_first.cascaded:
        raise ModelFileError(f"{first}: the second network of a cascade; expected the first, 3d_lowres")
    for name in ("labels", "channels"):
        here, there = getattr(plan, name), getattr(plan_of_first, name)
        if here != there:
            raise ModelFileError(f"{first}: {name} {there}; expected those of {path}: {here}")
