"""One scan in, its labels out: read, prepare as the plan says, predict by windows, back into the scan's own grid.

from mamba_vision.apis import inference_volume, init_volume_model

model = init_volume_model("work_dirs/liver")
inference_volume(model, "ct.nii.gz").save("ct_segmentation.nii.gz")
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from torch import nn

from mamba_vision.apis.sliding_window import LogitsStore, choose_scratch, sliding_window_logits
from mamba_vision.visualization.volumes import orthogonal_slices_figure
from mamba_vision.volumes.planning import Plan
from mamba_vision.volumes.preprocess import preprocess
from mamba_vision.volumes.reading import read_volume
from mamba_vision.volumes.restore import restore_labels, restore_probabilities
from mamba_vision.volumes.scans import ScanFiles
from mamba_vision.volumes.statistics import label_statistics
from mamba_vision.volumes.volume import Volume, VolumeError, stem
from mamba_vision.volumes.writing import write_image, write_labels

TTA = ("flips", "none")
_SLAB_MEMORY = 2**29  # bytes, at most, to bring logits back into the scan's grid; more makes it no faster
Scan = Any  # path | list of paths (channels) | ScanFiles | Volume | nibabel image(s) | MetaTensor | (array, affine)
Progress = Callable[[str, int, int], None]


@dataclass
class VolumeResult:
    """The segmentation of one scan.

    Attributes:
        mask: (X, Y, Z) uint8 or uint16, in the grid of the scan as it is stored.
        affine: (4, 4), voxel index to RAS mm, of scan and mask.
        labels: names and values, background first; what was not asked for is left out.
        volume: the scan.
        case: its name.
        channels: names of its channels.
        info: how it was made: seconds, device, windows, options, where the logits were held.
        probabilities: (K, X, Y, Z) float32, if asked for; mapped from a nameless file where memory is short.
        window: intensities that a picture shows, (lowest, highest); None leaves it to the picture.
    """

    mask: np.ndarray
    affine: np.ndarray
    labels: dict[str, int]
    volume: Volume
    case: str
    channels: list[str]
    info: dict[str, Any] = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    window: tuple[float, float] | None = None

    def statistics(self) -> list[dict[str, Any]]:
        """A record a label: voxels, ml, centroid, box, intensities; see volumes.statistics.label_statistics."""
        return label_statistics(self.mask, self.affine, self.labels, self.volume.array, self.channels)

    def save(self, path: str | Path) -> Path:
        """Write the mask as NIfTI in the scan's own grid, label names inside; whole or not at all."""
        return write_labels(path, self.mask, self.volume, self.labels)

    def save_probabilities(self, path: str | Path) -> Path:
        """Write the probabilities as a NIfTI (X, Y, Z, K).

        Raises:
            ValueError: they were not asked for.
        """
        if self.probabilities is None:
            raise ValueError("probabilities: segment with probabilities=True to have them")
        return write_image(path, np.moveaxis(self.probabilities, 0, -1), self.volume)

    def preview(self, path: str | Path) -> Path:
        """Write a PNG of three orthogonal slices (first channel) with the labels over them."""
        orthogonal_slices_figure(
            self.volume.array[0], self.mask, names=self.labels, affine=self.affine, path=path, title=self.case,
            window=self.window,
        )  # fmt: skip
        return Path(path)


def inference_volume(
    model: nn.Module,
    scan: Scan,
    *,
    series: str | None = None,
    tta: str = "flips",
    overlap: float = 0.5,
    max_memory: int | None = None,
    amp: bool = False,
    labels: Sequence[str] | None = None,
    probabilities: bool = False,
    batch_size: int | None = None,
    scratch: str | Path | None = None,
    progress: Progress | None = None,
) -> VolumeResult:
    """Segment one scan.

    Args:
        model: from `init_volume_model`.
        scan: a NIfTI file or DICOM folder; a list with one of these a channel; a Volume; a nibabel image or a list of
            them; a MetaTensor (X, Y, Z) or (C, X, Y, Z); or (array, affine) with an array of one of these shapes and
            the (4, 4) matrix from voxel index to RAS mm.
        series: which series of a DICOM folder that holds several.
        tta: 'flips' averages over all mirrored copies along the axes that training mirrored (up to 8 times the work),
            'none' predicts once.
        overlap: of neighbouring windows, as a fraction of their side.
        max_memory: bytes of main memory for the logits; by default half of what is free.
        amp: predict in bfloat16 (float16 on GPUs without it).
        labels: keep these only; by default all.
        probabilities: also give the probability of every class at every voxel.
        batch_size: windows predicted together; by default as many as in training. One alone is slow on a CPU: PyTorch
            then takes its plain convolution for small maps.
        scratch: folder of the temporary file, should the logits not fit into memory.
        progress: called with a stage ('read', 'prepare', 'predict', 'restore'), steps done and steps in all.

    Raises:
        VolumeError: a scan that cannot be read, or not with this model (number of channels).
        ValueError: an unknown option.
    """
    plan = Plan.from_dict(model.plan)
    kept = choose_labels(plan.labels, labels)
    if tta not in TTA:
        raise ValueError(f"tta: expected one of {', '.join(TTA)}, found {tta!r}")
    report = progress or (lambda stage, done, total: None)
    device = next(model.parameters()).device
    clock, seconds = time.perf_counter(), {}

    def finish(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[stage], clock = round(now - clock, 3), now

    report("read", 0, 1)
    volume = to_volume(scan, series, plan.fix_geometry)
    check_channels(volume, plan)
    finish("read")
    report("prepare", 0, 1)
    case = preprocess(volume, plan)
    finish("prepare")

    axes = mirror_axes(model) if tta == "flips" else ()
    windows = 0

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=_half(device), enabled=amp):
            return model.predict_logits(inputs, inferer=lambda whole, network: network(whole), mirror_axes=axes)

    def count(done: int, total: int) -> None:
        nonlocal windows
        windows = total
        report("predict", done, total)

    slab_memory = min(max_memory or _SLAB_MEMORY, _SLAB_MEMORY)

    def restored(done: int, total: int) -> None:
        logits.release(case.image.shape[1])
        report("restore", done, total)

    with torch.no_grad(), sliding_window_logits(
        case.image, predict, plan.patch_size, len(plan.labels), overlap=overlap, device=device,
        batch_size=batch_size or plan.batch_size, max_memory=max_memory,
        scratch=scratch, progress=count,
    ) as logits:  # fmt: skip
        finish("predict")
        report("restore", 0, 1)
        mask = restore_labels(logits.array, case.geometry, plan, slab_memory, restored)
        chances = None
        if probabilities:
            shape = (len(plan.labels), *volume.shape)
            room = LogitsStore(shape, choose_scratch(shape, max_memory, scratch))
            chances = restore_probabilities(
                logits.array, case.geometry, plan, room.array, slab_memory, lambda *_: room.release(volume.shape[0])
            )
        where = logits.where
    finish("restore")
    if len(kept) < len(plan.labels):
        mask[~np.isin(mask, list(kept.values()))] = 0
    info = {
        "seconds": seconds, "device": str(device), "tta": tta, "mirror_axes": list(axes), "overlap": overlap,
        "amp": amp, "windows": windows, "logits": where,
    }  # fmt: skip
    return VolumeResult(
        mask, volume.affine, kept, volume, _case_name(scan, volume), list(plan.channels), info, chances, _window(plan)
    )


def to_volume(scan: Scan, series: str | None = None, fix_geometry: str = "error") -> Volume:
    """Any of the kinds of scan that `inference_volume` takes, as a Volume; `fix_geometry` as for read_volume.

    Raises:
        VolumeError: a file that cannot be read; an array that is not 3-D or not finite.
        ValueError: something else than a scan.
    """
    if isinstance(scan, Volume):
        return _finite(scan)
    if isinstance(scan, ScanFiles):
        return read_volume(list(scan.images), series or scan.series, fix_geometry)
    if isinstance(scan, str | Path):
        return read_volume(scan, series, fix_geometry)
    if isinstance(scan, MetaTensor):
        return _from_array(scan.numpy(force=True), np.asarray(scan.affine, np.float64))
    if isinstance(scan, nib.spatialimages.SpatialImage):
        return _from_nibabel([scan])
    if isinstance(scan, tuple | list) and len(scan):
        if len(scan) == 2 and np.shape(scan[1]) == (4, 4):
            return _from_array(np.asarray(scan[0]), np.asarray(scan[1], np.float64))
        if all(isinstance(one, str | Path) for one in scan):
            return read_volume(list(scan), series, fix_geometry)
        if all(isinstance(one, nib.spatialimages.SpatialImage) for one in scan):
            return _from_nibabel(list(scan))
    raise ValueError(
        f"scan: expected paths, a nibabel image, a MetaTensor or (array, affine), found {type(scan).__name__}"
    )


def check_channels(volume: Volume, plan: Plan) -> None:
    """Raises VolumeError where the scan has not the channels that the model was trained on."""
    found, expected = len(volume.array), len(plan.channels)
    if found != expected:
        raise VolumeError(
            volume.name, f"{found} channel{'s' if found > 1 else ''}", f"{expected} ({', '.join(plan.channels)})",
            "Name a case's files CASE_0000.nii.gz, CASE_0001.nii.gz ... in this order, or list them after --channels",
        )  # fmt: skip


def choose_labels(labels: dict[str, int], names: Sequence[str] | None) -> dict[str, int]:
    """The labels called `names`, and background; all of them for None.

    Raises:
        ValueError: a name that the model does not know.
    """
    if names is None:
        return dict(labels)
    unknown = [name for name in names if name not in labels]
    if unknown or not names:
        raise ValueError(f"labels: expected some of {', '.join(labels)}, found {', '.join(unknown) or 'none'}")
    return {name: value for name, value in labels.items() if value == 0 or name in names}


def mirror_axes(model: nn.Module) -> tuple[int, ...]:
    """Axes along which training mirrored patches at random, read from its configuration; else the model's own."""
    loader = getattr(model, "cfg", {}).get("train_dataloader") or {}
    pipeline = (loader.get("dataset") or {}).get("pipeline") or []
    axes: set[int] = set()
    for step in pipeline:
        if str(step.get("type", "")).split(".")[-1] == "RandFlipd" and step.get("prob", 0.1) > 0:
            axis = step.get("spatial_axis")
            axes.update(range(3) if axis is None else [axis] if isinstance(axis, int) else axis)
    return tuple(sorted(axis % 3 for axis in axes)) or tuple(model.mirror_axes)


def _from_nibabel(images: list[nib.spatialimages.SpatialImage]) -> Volume:
    first = images[0]
    for other in images[1:]:
        if other.shape != first.shape or not np.allclose(other.affine, first.affine, atol=1e-3):
            raise VolumeError("the scan", "channels in different grids", "one shape and affine for all channels")
    sides = first.shape
    while len(sides) > 3 and sides[-1] == 1:  # a single time point or channel, as some programs write it
        sides = sides[:-1]
    array = np.stack([np.asarray(image.dataobj, np.float32).reshape(sides) for image in images])
    header = first.header if isinstance(first, nib.Nifti1Image) else None
    return _from_array(array[0] if len(images) == 1 else array, first.affine, header)


def _from_array(array: np.ndarray, affine: np.ndarray, header: nib.Nifti1Header | None = None) -> Volume:
    shape = array.shape
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or min(array.shape[1:], default=0) < 2:
        raise VolumeError("the scan", f"an array of shape {shape}", "a 3-D scan (X, Y, Z) or (C, X, Y, Z)")
    return _finite(Volume(array.astype(np.float32, copy=False), affine, header))


def _finite(volume: Volume) -> Volume:
    if not np.isfinite(volume.array.sum(dtype=np.float64)):
        bad = int(volume.array.size - np.isfinite(volume.array).sum())
        raise VolumeError(volume.name, f"{bad} NaN or Inf voxels", "finite intensities", "Replace them, e.g. by 0")
    return volume


def _half(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16


def _case_name(scan: Scan, volume: Volume) -> str:
    if isinstance(scan, ScanFiles):
        return scan.case
    return stem(volume.paths[0]).removesuffix("_0000") if volume.paths else "scan"


def _window(plan: Plan) -> tuple[float, float] | None:
    """CT is shown in the range of the trained structures; other intensities have no fixed scale."""
    if plan.normalization[0] != "ct":
        return None
    return plan.intensities[0]["percentile_00_5"], plan.intensities[0]["percentile_99_5"]
