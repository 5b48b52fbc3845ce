"""The text of the training configuration that tools/plan.py leaves in a work folder: plain MMEngine, to be edited."""

import json
import os
import pprint
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

from mamba_vision.apis.config_augmentation import Augmentation
from mamba_vision.volumes.plan import Plan


@dataclass(frozen=True)
class Preset:
    """How long to train and how. `augmentation` is 'full' (nnU-Net's) or 'light' (mirroring and brightness)."""

    epochs: int
    iterations: int  # an epoch
    validate_every: int  # epochs
    save_every: int  # epochs
    optimizer: Mapping[str, Any]
    augmentation: str
    why: str
    mirror: bool = False  # average over mirrored copies in prediction


PRESETS = {
    "default": Preset(
        epochs=1000,
        iterations=250,
        validate_every=25,
        save_every=5,
        optimizer={"type": "SGD", "lr": 1e-2, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5},
        augmentation="full",
        why="nnU-Net's schedule: 1000 epochs of 250 batches, SGD, all of its augmentation",
    ),
    "best": Preset(
        epochs=1000,
        iterations=250,
        validate_every=25,
        save_every=5,
        optimizer={"type": "SGD", "lr": 1e-2, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5},
        augmentation="full",
        why="as 'default', on the larger patches of the plan, and with mirrored copies in prediction",
        mirror=True,
    ),
    "fast": Preset(
        epochs=8,
        iterations=25,
        validate_every=4,
        save_every=1,
        optimizer={"type": "AdamW", "lr": 3e-3, "weight_decay": 1e-2},
        augmentation="light",
        why="a demonstration: minutes on two CPU cores; a real training wants the preset 'default'",
    ),
}

_CONFIG = """\
# Training of $dataset, written by tools/plan.py and yours to edit. An MMEngine configuration.
#
#   python tools/train.py $config --amp
#   python tools/train.py $config --amp --resume          goes on where it stopped
#   python tools/test.py $config CHECKPOINT               Dice and surface distances per case and class
#   python tools/segment.py $work_dir SCANS --out FOLDER
#
# Configuration $configuration.
# Preset '$preset': $why.
# Voxel spacing, intensity scheme and axes are facts of the prepared data and stay in plan.json; the reasons too.

default_scope = 'mamba_vision'
custom_imports = dict(
    imports=['mamba_vision.models', 'mamba_vision.datasets', 'mamba_vision.evaluation', 'mamba_vision.engine'],
    allow_failed_imports=False)

# ---- Where things are -----------------------------------------------------------------------------------------------
# Everything that is made lies in this folder, which may be moved or renamed. Only `scans` points elsewhere.
scans = $scans$series
work_dir = '{{ fileDirname }}'
plan = f'{work_dir}/plan.json'
splits = f'{work_dir}/$splits'
prepared = f'{work_dir}/$prepared'$previous
fold = $fold  # which part of splits.json validates; 'all' trains and validates on every case

# ---- What is segmented ----------------------------------------------------------------------------------------------
channels = $channels
classes = $classes$meaning

# ---- Sizes ----------------------------------------------------------------------------------------------------------
patch_size = $patch_size  # voxels$patch_reason
batch_size = $batch_size  # patches$batch_reason
epochs = $epochs
iterations = $iterations  # an epoch

# ---- Network --------------------------------------------------------------------------------------------------------
network = $network

model = dict(
    type='VolumeSegmentor',
    plan=plan,
    data_preprocessor=dict(type='VolumePreprocessor'),
    network=network,
    # $loss_reason
    loss=$loss,
    inferer=dict(type='SlidingWindowInferer', roi_size=$window, sw_batch_size=batch_size, overlap=0.5,
                 mode='gaussian', sigma_scale=0.125),$kind
    mirror_axes=$mirror)  # $all_axes: mean over mirrored copies in prediction, $copies times the work, a little better

# ---- Data -----------------------------------------------------------------------------------------------------------
$augmentation
dataset = dict(
    type='VolumeDataset', root=prepared, splits=splits, fold=fold,
    classes=classes$data_options)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=$workers,
    persistent_workers=$persistent,
    pin_memory=$pin,
    sampler=dict(type='DefaultSampler', shuffle=True),
    # A third of every batch, rounded up, is centred on a voxel of some foreground class.
    batch_sampler=dict(type='PatchBatchSampler', iterations=iterations, foreground=0.33),
    dataset=dict(
        **dataset, split='train', patch_size=enlarged, final_size=patch_size, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=$val_workers,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, split='val'))
test_dataloader = val_dataloader

# Dice of whole volumes, by sliding window. tools/test.py adds surface distances, in the grid of the scans.
val_evaluator = dict(
    type='VolumeMetric', classes=classes, scores=['dice']$metric_options)
test_evaluator = dict(
    type='VolumeMetric', classes=classes, scores=['dice', 'hd95', 'surface_dice'],
    tolerance=$tolerance$metric_options)  # mm

# ---- Schedule -------------------------------------------------------------------------------------------------------
train_cfg = dict(type='ResumableEpochLoop', max_epochs=epochs, val_interval=$validate_every)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MambaOptimWrapperConstructor',  # no weight decay for A_log and D of the state space models
    optimizer=$optimizer,
    clip_grad=dict(max_norm=12))
# lr * (1 - t/T)^0.9. MMEngine counts T from the second step on, hence the + 1.
param_scheduler = dict(type='PolyLR', power=0.9, eta_min=0, begin=0, $decay)
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
randomness = dict(seed=$seed)

# ---- Running --------------------------------------------------------------------------------------------------------
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=$log_every),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='AtomicCheckpointHook', interval=$save_every, max_keep_ckpts=1, save_best='dice', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [
    dict(type='FiniteLossHook'),  # stops at the first NaN
    dict(type='InterruptHook'),  # Ctrl-C, SIGTERM: save, then stop
    dict(type='ProgressHook'),  # a live bar on a terminal
    dict(type='ProgressPlotHook'),  # progress.png
    dict(type='ValidationPictureHook', cases=3),  # val/epoch_N.png
    dict(type='TrainingReportHook'),  # training/index.html: the course, and the worst cases of the last validation
]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_processor = dict(window_size=$log_every)
log_level = 'INFO'
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
load_from = None
resume = False
"""


def render_config(
    plan: Any,
    data: Mapping[str, Any],
    work_dir: str | os.PathLike,
    *,
    preset: str = "default",
    fold: int | str = 0,
    seed: int = 0,
    workers: int | None = None,
    main: str = "3d_fullres",
) -> str:
    """The configuration for `plan`, as the text of a Python file that stands in `work_dir` as config.py.

    Args:
        plan: a volumes.Plan (or a dict of its fields).
        data: `scans`, the folder the scans are read from; optional `series`, of its DICOM folders, and `tolerance`, of
            the surface Dice in mm.
        work_dir: the folder it is written for; only named in the comments, as the config finds its own place.
        preset: a key of PRESETS.
        fold: the part of splits.json that validates, or 'all'.
        seed: of initialization and sampling.
        workers: processes that load patches; by default all cores but one, at most 12, and none for 'fast'.
        main: the configuration in the work folder itself; each other one has a folder of its own in it.

    Raises:
        ValueError: an unknown preset or a missing key in `data`.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, found {preset!r}")
    unknown = set(data) - {"scans", "series", "tolerance"}
    if "scans" not in data or unknown:
        raise ValueError(f"data: expected the key 'scans', perhaps 'series' and 'tolerance', found {sorted(data)}")
    plan = plan if isinstance(plan, Plan) else Plan.from_dict(plan)
    chosen, reasons = PRESETS[preset], plan.reasons
    patch = plan.patch_size[1:] if plan.slicewise else plan.patch_size
    if workers is None:
        workers = 0 if preset == "fast" else max(1, min(12, (os.cpu_count() or 1) - 1))
    full = chosen.augmentation == "full"
    augmentation = Augmentation(
        patch, full, tuple(index for index, masked in enumerate(plan.use_mask) if masked), len(plan.channels),
        plan.num_classes if plan.cascaded else 0,
    )  # fmt: skip
    folder = os.fspath(work_dir).rstrip("/\\")
    axes = (1, 2) if plan.slicewise else (0, 1, 2)
    return Template(_CONFIG).substitute(
        **_places(plan, main),
        **_classes(plan),
        configuration=plan.configuration,
        dataset=plan.dataset.replace("\n", " "),
        config=f"{folder}/config.py",
        work_dir=folder,
        preset=preset,
        why=chosen.why,
        scans=_quoted(os.fspath(data["scans"])),
        series=f"\nseries = {_quoted(data['series'])}  # of each DICOM folder" if data.get("series") else "",
        fold=repr(fold),
        channels=_literal(list(plan.channels)),
        patch_size=patch,
        window="(1, *patch_size)" if plan.slicewise else "patch_size",
        patch_reason=_comment(reasons.get("patch_size")),
        batch_size=plan.batch_size,
        batch_reason=_comment(reasons.get("batch_size")),
        epochs=chosen.epochs,
        iterations=chosen.iterations,
        network=_call(plan.network, patch),
        augmentation=augmentation.render(),
        mirror=str(axes) if chosen.mirror else "()",
        all_axes=axes,
        copies=2 ** len(axes),
        workers=workers,
        persistent=workers > 0,
        pin=workers > 0,
        val_workers=min(workers, 2),
        tolerance=float(data.get("tolerance", 2.0)),
        validate_every=chosen.validate_every,
        optimizer=_call(chosen.optimizer, indent=" " * 8),
        decay="end=epochs + 1, by_epoch=True" if full else "end=epochs * iterations + 1, by_epoch=False",
        seed=int(seed),
        log_every=min(10, chosen.iterations),
        save_every=chosen.save_every,
    )


def _places(plan: Plan, main: str) -> dict[str, str]:
    """Where data lie, seen from the configuration's folder."""
    if plan.configuration == main:
        return {"splits": "splits.json", "prepared": "preprocessed", "previous": "", "data_options": _ignored(plan)}
    if not plan.cascaded:
        return {"splits": "../splits.json", "prepared": "preprocessed", "previous": "", "data_options": _ignored(plan)}
    full = "../preprocessed" if main == "3d_fullres" else "../3d_fullres/preprocessed"
    previous = (
        "\n# 3d_lowres, every fold of it, has to be trained before: each case is segmented by the fold that did not see"
        " it.\nlowres = f'{work_dir}/../3d_lowres'\nprevious = f'{work_dir}/previous'"
    )
    options = f"{_ignored(plan)}, previous=previous"
    return {"splits": "../splits.json", "prepared": full, "previous": previous, "data_options": options}


def _ignored(plan: Plan) -> str:
    return "" if plan.ignore_class is None else ", ignore_index=ignore_index"


def _classes(plan: Plan) -> dict[str, str]:
    """What classes mean to loss, prediction and scores."""
    meaning, kind = "", "\n    slicewise=True,  # the network sees single slices" if plan.slicewise else ""
    options, arguments = _ignored(plan), f"batch_dice={plan.batch_dice}{_ignored(plan)}"
    name, what = "DiceCELoss", "Soft Dice + cross-entropy"
    if plan.regions:
        paints = [list(plan.labels.values()).index(value) for value in plan.region_order]
        meaning += (
            "\n# The network has an output a region: the classes in it, by number. Regions are painted one over the"
            f" other\n# as classes {paints}.\nregions = {_literal(plan.region_classes)}"
        )
        kind += f"\n    paints={paints},"
        name, what = "DiceBCELoss", "Soft Dice + binary cross-entropy"
        arguments = f"regions=list(regions.values()), {arguments}"
        options += ", regions=regions"
    if plan.ignore_class is not None:
        meaning += (
            f"\nignore_index = {plan.ignore_class}  # voxels that nobody annotated: neither loss nor scores see them"
        )
    loss = f"dict(type='{name}', {arguments})"
    what += ", at each resolution of the network's outputs: weights 1, 1/2 ..., coarsest 0"
    loss = f"dict(\n        type='DeepSupervisionLoss',\n        loss={loss})"
    return {
        "classes": _literal(list(plan.labels)), "meaning": meaning, "kind": kind, "loss": loss,
        "loss_reason": f"{what}.", "metric_options": options,
    }  # fmt: skip


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _comment(reason: str | None) -> str:
    return "; " + " ".join(str(reason).split()) if reason else ""


def _literal(value: Any) -> str:
    return pprint.pformat(value, width=100, compact=True, sort_dicts=False)


def _plain(value: Any) -> Any:
    """Lists and tuples of numbers as lists, NumPy numbers as Python's: what a person writes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _call(arguments: Mapping[str, Any], patch: tuple[int, ...] | None = None, indent: str = " " * 4) -> str:
    """dict(type='...', ...) over several lines; a `patch_size` equal to the config's refers to that variable."""
    lines = []
    for key, value in arguments.items():
        value = _plain(value)
        shared = key == "patch_size" and patch is not None and value == list(patch)
        lines.append(f"{indent}{key}={'patch_size' if shared else _literal(value)},")
    return "dict(\n" + "\n".join(lines).rstrip(",") + ")"
