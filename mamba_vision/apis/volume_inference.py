"""One scan in, its labels out: read, prepare as the plan says, predict by windows, back into the scan's own grid.

from mamba_vision.apis import inference_volume, init_volume_model

model = init_volume_model("work_dirs/liver")
inference_volume(model, "ct.nii.gz").save("ct_segmentation.nii.gz")
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mamba_vision.apis.sliding_window import BUFFERS, LogitsStore, sliding_window_logits
from mamba_vision.apis.volume_cascade import add_previous, low_resolution
from mamba_vision.apis.volume_ensemble import VolumeEnsemble, as_ensemble, ensemble_predictor
from mamba_vision.apis.volume_inputs import Scan, check_channels, check_slice, to_volume
from mamba_vision.apis.volume_model import half_dtype
from mamba_vision.apis.volume_result import VolumeResult
from mamba_vision.utils.scratch_array import choose_scratch
from mamba_vision.volumes.components import KeepLargest, apply_steps, load_steps, steps_as_json
from mamba_vision.volumes.planning import Plan
from mamba_vision.volumes.preprocess import Case, prepare_labels, preprocess
from mamba_vision.volumes.restore import (
    labels_from_probabilities,
    restore_labels,
    restore_probabilities,
    voxel_uncertainty,
)
from mamba_vision.volumes.scans import ScanFiles
from mamba_vision.volumes.volume import Volume, stem

TTA = ("flips", "none")
_SLAB_MEMORY = 2**29  # bytes, at most, to bring logits back into the scan's grid; more makes it no faster
Model = nn.Module | VolumeEnsemble | Sequence[nn.Module]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class InferenceOptions:
    """How scans are segmented; see `inference_volume`.

    Raises:
        ValueError: an unknown `tta` or `buffer`.
    """

    tta: str = "flips"
    overlap: float = 0.5
    max_memory: int | None = None
    amp: bool = False
    labels: tuple[str, ...] | None = None
    probabilities: bool = False
    batch_size: int | None = None
    buffer: str = "auto"
    postprocessing: str = "auto"
    keep_largest: tuple[str, ...] | None = None
    uncertainty: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("tta", TTA), ("buffer", BUFFERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, found {getattr(self, name)!r}")
        for name in ("labels", "keep_largest"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "postprocessing", str(self.postprocessing))


@dataclass
class PreparedScan:
    """A scan that has been read, and prepared for the first configuration of an ensemble."""

    volume: Volume
    name: str
    case: Case | None
    seconds: dict[str, float] = field(default_factory=dict)


def inference_volume(
    model: Model,
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
    buffer: str = "auto",
    postprocessing: str | Path = "auto",
    keep_largest: Sequence[str] | None = None,
    uncertainty: bool = False,
    scratch: str | Path | None = None,
    progress: Progress | None = None,
) -> VolumeResult:
    """Segment one scan.

    Args:
        model: from `init_volume_model`, several of them (folds, whose logits are averaged), or from
            `init_volume_ensemble`.
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
        buffer: where the windows are added up: 'memory', 'file' (temporary), 'gpu', or 'auto', memory as long as
            `max_memory` allows and a file beyond.
        postprocessing: 'auto' applies the postprocessing.json of the work folder if there is one, 'none' nothing; or
            such a file.
        keep_largest: of each of these labels (of every one, if the list is empty) only the largest piece stays.
        uncertainty: also tell how undecided each voxel is, see volumes.restore.voxel_uncertainty.
        scratch: folder of the temporary file, should the logits not fit into memory.
        progress: called with a stage ('read', 'prepare', 'predict', 'restore'), steps done and steps in all.

    Raises:
        VolumeError: a scan that cannot be read, or not with this model (number of channels).
        ValueError: an unknown option.
    """
    ensemble = as_ensemble(model)
    options = InferenceOptions(
        tta=tta, overlap=overlap, max_memory=max_memory, amp=amp, labels=labels, probabilities=probabilities,
        batch_size=batch_size, buffer=buffer, postprocessing=postprocessing, keep_largest=keep_largest,
        uncertainty=uncertainty,
    )  # fmt: skip
    choose_labels(ensemble.labels, options.labels)
    choose_steps(ensemble, options)
    prepared = prepare_scan(ensemble, scan, series, progress)
    return segment_prepared(ensemble, prepared, options, scratch, progress)


def prepare_scan(
    ensemble: VolumeEnsemble, scan: Scan, series: str | None = None, progress: Progress | None = None
) -> PreparedScan:
    """Read a scan and prepare it for the first configuration: the part of the work that needs no model."""
    plan, report, clock = ensemble.plans[0], progress or _silent, _Clock()
    report("read", 0, 1)
    volume = to_volume(scan, series, plan.fix_geometry)
    check_channels(volume, plan)
    for one in ensemble.plans:
        check_slice(volume, one)
    clock.note("read")
    report("prepare", 0, 1)
    case = preprocess(volume, plan)
    clock.note("prepare")
    return PreparedScan(volume, _case_name(scan, volume), case, clock.seconds)


def segment_prepared(
    ensemble: VolumeEnsemble,
    prepared: PreparedScan,
    options: InferenceOptions,
    scratch: str | Path | None = None,
    progress: Progress | None = None,
) -> VolumeResult:
    """The labels of a prepared scan, which is used up; see `inference_volume` for options and errors."""
    report, clock = progress or _silent, _Clock(prepared.seconds)
    plans, volume = ensemble.plans, prepared.volume
    steps = choose_steps(ensemble, options)
    kept = choose_labels(ensemble.labels, options.labels)
    axes = [mirror_axes(model) if options.tta == "flips" else () for model in ensemble.models]
    slab_memory = min(options.max_memory or _SLAB_MEMORY, _SLAB_MEMORY)
    several, mask, room, windows = len(plans) > 1, None, None, 0
    if several or options.probabilities or options.uncertainty:
        shape = (plans[0].num_outputs, *volume.shape)
        room = LogitsStore(shape, choose_scratch(shape, options.max_memory, scratch))

    def count(done: int, total: int) -> None:
        report("predict", windows + done, (windows + total) * len(plans) // (number + 1))

    for number, (models, plan) in enumerate(zip(ensemble.configurations, plans)):
        case = prepared.case if number == 0 else preprocess(volume, plan)
        prepared.case = None
        if plan.cascaded:
            case = _with_low_resolution(case, plan, models[0], prepared, options, scratch)
        first = sum(len(before) for before in ensemble.configurations[:number])
        predict = ensemble_predictor(
            models, axes[first : first + len(models)], half_dtype(ensemble.device) if options.amp else None
        )
        with torch.no_grad(), sliding_window_logits(
            case.image, predict, plan.patch_size, plan.num_outputs, overlap=options.overlap, device=ensemble.device,
            batch_size=options.batch_size or plan.batch_size, max_memory=options.max_memory, scratch=scratch,
            buffer=options.buffer, progress=count,
        ) as logits:  # fmt: skip
            windows += logits.windows
            clock.note("predict")
            geometry, rows, case = case.geometry, case.image.shape[1], None
            report("restore", 0, 1)

            def restored(done: int, total: int, logits=logits, rows=rows) -> None:
                logits.release(rows)
                report("restore", done, total)

            if not several:
                mask = restore_labels(logits.array, geometry, plan, slab_memory, restored)
            if room is not None:
                restore_probabilities(
                    logits.array, geometry, plan, room.array, slab_memory,
                    lambda *_: room.release(volume.shape[0]), add=several,
                )  # fmt: skip
            where = logits.where
        clock.note("restore")
    if several:
        mask = labels_from_probabilities(
            room.array, plans[0], len(plans), slab_memory, lambda *_: room.release(volume.shape[0])
        )
    undecided = voxel_uncertainty(room.array, plans[0], slab_memory) if options.uncertainty else None
    apply_steps(mask, steps)
    if len(kept) < len(ensemble.labels):
        for plane in mask:
            plane[~np.isin(plane, list(kept.values()))] = 0
    clock.note("restore")
    info = {
        "seconds": clock.seconds, "device": str(ensemble.device), "models": [len(m) for m in ensemble.configurations],
        "tta": options.tta, "mirror_axes": sorted({axis for each in axes for axis in each}),
        "overlap": options.overlap, "amp": options.amp, "windows": windows, "logits": where,
        "postprocessing": steps_as_json(steps),
    }  # fmt: skip
    return VolumeResult(
        mask, volume.affine, kept, volume, prepared.name, list(plans[0].channels), info,
        room.array if options.probabilities else None, _window(plans[0]), undecided,
    )  # fmt: skip


def _with_low_resolution(
    case: Case, plan: Plan, model: nn.Module, prepared: PreparedScan, options: InferenceOptions, scratch: Any
) -> Case:
    """The case with what the low resolution finds in the scan, as the second network of a cascade was trained."""
    ensemble = low_resolution(model)
    scan = PreparedScan(prepared.volume, prepared.name, preprocess(prepared.volume, ensemble.plans[0]))
    plain = replace(
        options, labels=None, probabilities=False, uncertainty=False, postprocessing="none", keep_largest=None
    )
    found = segment_prepared(ensemble, scan, plain, scratch).mask
    classes = prepare_labels(found, case.geometry, plan)
    return replace(case, image=add_previous(case.image, classes, plan.num_classes))


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


def choose_steps(ensemble: VolumeEnsemble, options: InferenceOptions) -> tuple[KeepLargest, ...]:
    """The clean-up that the options ask for, in order.

    Raises:
        ValueError: a file that is none or for other labels, or an unknown name.
    """
    steps: tuple[KeepLargest, ...] = ()
    if options.postprocessing == "auto":
        steps = ensemble.usual_steps
    elif options.postprocessing != "none":
        steps = load_steps(Path(options.postprocessing), ensemble.labels)
    if options.keep_largest is not None:
        foreground = {name: value for name, value in ensemble.labels.items() if value}
        names = options.keep_largest or tuple(foreground)
        if unknown := [name for name in names if name not in foreground]:
            raise ValueError(
                f"keep_largest: expected some of {', '.join(foreground)}, found {', '.join(map(str, unknown))}"
            )
        steps += tuple(KeepLargest(name, (foreground[name],)) for name in names)
    return steps


def mirror_axes(model: nn.Module) -> tuple[int, ...]:
    """Axes along which training mirrored patches at random, read from its configuration; else the model's own."""
    loader = getattr(model, "cfg", {}).get("train_dataloader") or {}
    pipeline = (loader.get("dataset") or {}).get("pipeline") or []
    axes: set[int] = set()
    for step in pipeline:
        if str(step.get("type", "")).split(".")[-1] == "RandFlipd" and step.get("prob", 0.1) > 0:
            axis = step.get("spatial_axis")
            axes.update(range(3) if axis is None else [axis] if isinstance(axis, int) else axis)
    first = 1 if getattr(model, "slicewise", False) else 0  # patches of slices lack the volume's first axis
    return tuple(sorted({first + axis % (3 - first) for axis in axes})) or tuple(model.mirror_axes)


class _Clock:
    """Seconds of each stage, several turns at one added up."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})
        self._last = time.perf_counter()

    def note(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 3)
        self._last = now


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _case_name(scan: Any, volume: Volume) -> str:
    if isinstance(scan, ScanFiles):
        return scan.case
    return stem(volume.paths[0]).removesuffix("_0000") if volume.paths else "scan"


def _window(plan: Plan) -> tuple[float, float] | None:
    """CT is shown in the range of the trained structures; other intensities have no fixed scale."""
    if plan.normalization[0] != "ct":
        return None
    return plan.intensities[0]["percentile_00_5"], plan.intensities[0]["percentile_99_5"]
