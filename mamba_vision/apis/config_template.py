"""The text of the training configuration that tools/plan.py leaves in a work folder: plain MMEngine, to be edited."""

import json
import os
import pprint
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from string import Template
from typing import Any


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

_FULL_AUGMENTATION = """\
# nnU-Net's augmentation by MONAI's dictionary transforms; `prob` is the chance a patch. Patches are cut larger than
# the network wants them, so that rotations bring no empty corners.
degree = 3.14159265 / 180
train_pipeline = [
    dict(type='RandRotated', keys=['image', 'label'], prob=0.2, mode=['bilinear', 'nearest'], padding_mode='zeros',
         range_x=$range_x * degree, range_y=$range_y * degree, range_z=$range_z * degree),
    dict(type='RandZoomd', keys=['image', 'label'], prob=0.2, min_zoom=0.7, max_zoom=1.4,
         mode=['trilinear', 'nearest'], padding_mode='constant'),
    dict(type='CenterSpatialCropd', keys=['image', 'label'], roi_size=patch_size),
    dict(type='RandGaussianNoised', keys='image', prob=0.1, std=0.316),
    dict(type='RandGaussianSmoothd', keys='image', prob=0.2, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)),
    dict(type='RandScaleIntensityd', keys='image', prob=0.15, factors=0.25),
    dict(type='RandScaleIntensityFixedMeand', keys='image', prob=0.15, factors=0.25, preserve_range=True),
    dict(type='RandSimulateLowResolutiond', keys='image', prob=0.25, zoom_range=(0.5, 1.0)),
    dict(type='RandAdjustContrastd', keys='image', prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
    dict(type='RandAdjustContrastd', keys='image', prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=0),
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=1),
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=2),
]
enlarged = $enlarged  # cut before augmentation: room for the rotations and zooms above
"""

_LIGHT_AUGMENTATION = """\
# MONAI's dictionary transforms; `prob` is the chance a patch.
train_pipeline = [
    dict(type='RandScaleIntensityd', keys='image', prob=0.15, factors=0.25),
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=0),
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=1),
    dict(type='RandFlipd', keys=['image', 'label'], prob=0.5, spatial_axis=2),
]
enlarged = patch_size  # cut before augmentation
"""

_CONFIG = """\
# Training of $dataset, written by tools/plan.py and yours to edit. An MMEngine configuration.
#
#   python tools/train.py $config --amp
#   python tools/train.py $config --amp --resume          goes on where it stopped
#   python tools/test.py $config CHECKPOINT               Dice and surface distances per case and class
#   python tools/segment.py $work_dir SCANS --out FOLDER
#
# Preset '$preset': $why.
# Voxel spacing, intensity scheme and axes are facts of the prepared data and stay in plan.json; the reasons too.

default_scope = 'mamba_vision'
custom_imports = dict(
    imports=['mamba_vision.models', 'mamba_vision.datasets', 'mamba_vision.evaluation', 'mamba_vision.engine'],
    allow_failed_imports=False)

# ---- Where things are -----------------------------------------------------------------------------------------------
# Everything that is made lies in this folder, which may be moved or renamed. Only `scans` points elsewhere.
scans = $scans
work_dir = '{{ fileDirname }}'
plan = f'{work_dir}/plan.json'
splits = f'{work_dir}/splits.json'
prepared = f'{work_dir}/preprocessed'
fold = $fold  # which part of splits.json validates; 'all' trains and validates on every case

# ---- What is segmented ----------------------------------------------------------------------------------------------
channels = $channels
classes = $classes

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
    # Soft Dice + cross-entropy, at every resolution of the decoder (weights 1, 1/2, 1/4 ..., the coarsest 0).
    loss=dict(type='DeepSupervisionLoss', loss=dict(type='DiceCELoss', batch_dice=False)),
    inferer=dict(type='SlidingWindowInferer', roi_size=patch_size, sw_batch_size=batch_size, overlap=0.5,
                 mode='gaussian', sigma_scale=0.125),
    mirror_axes=$mirror)  # (0, 1, 2) averages over mirrored copies in prediction: 8 times the work, a little better

# ---- Data -----------------------------------------------------------------------------------------------------------
$augmentation
dataset = dict(type='VolumeDataset', root=prepared, splits=splits, fold=fold, classes=classes)
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
val_evaluator = dict(type='VolumeMetric', classes=classes, scores=['dice'])
test_evaluator = dict(
    type='VolumeMetric', classes=classes, scores=['dice', 'hd95', 'surface_dice'], tolerance=$tolerance)  # mm

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
) -> str:
    """The configuration for `plan`, as the text of a Python file that stands in `work_dir` as config.py.

    Args:
        plan: a volumes.planning.Plan (or a dict of its fields).
        data: `scans`, the folder the scans are read from; optional `tolerance`, of the surface Dice in mm.
        work_dir: the folder it is written for; only named in the comments, as the config finds its own place.
        preset: a key of PRESETS.
        fold: the part of splits.json that validates, or 'all'.
        seed: of initialization and sampling.
        workers: processes that load patches; by default all cores but one, at most 12, and none for 'fast'.

    Raises:
        ValueError: an unknown preset or a missing key in `data`.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, found {preset!r}")
    unknown = set(data) - {"scans", "tolerance"}
    if "scans" not in data or unknown:
        raise ValueError(f"data: expected the key 'scans' and perhaps 'tolerance', found {sorted(data)}")
    fields = asdict(plan) if is_dataclass(plan) else dict(plan)
    chosen = PRESETS[preset]
    patch = tuple(int(side) for side in fields["patch_size"])
    reasons = fields.get("reasons") or {}
    if workers is None:
        workers = 0 if preset == "fast" else max(1, min(12, (os.cpu_count() or 1) - 1))
    network = dict(fields["network"])
    names = sorted(fields["labels"], key=fields["labels"].get)
    angles, enlarged = _rotation(patch)
    full = chosen.augmentation == "full"
    augmentation = Template(_FULL_AUGMENTATION).substitute(
        range_x=angles[0], range_y=angles[1], range_z=angles[2], enlarged=enlarged
    )
    folder = os.fspath(work_dir).rstrip("/\\")
    return Template(_CONFIG).substitute(
        dataset=str(fields["dataset"]).replace("\n", " "),
        config=f"{folder}/config.py",
        work_dir=folder,
        preset=preset,
        why=chosen.why,
        scans=_quoted(os.fspath(data["scans"])),
        fold=repr(fold),
        channels=_literal(list(fields["channels"])),
        classes=_literal(names),
        patch_size=patch,
        patch_reason=_comment(reasons.get("patch_size")),
        batch_size=int(fields["batch_size"]),
        batch_reason=_comment(reasons.get("batch_size")),
        epochs=chosen.epochs,
        iterations=chosen.iterations,
        network=_call(network, patch),
        augmentation=augmentation if full else _LIGHT_AUGMENTATION,
        mirror="(0, 1, 2)" if chosen.mirror else "()",
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


def _rotation(patch: tuple[int, int, int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Greatest rotation about each axis in degrees, and the patch that still covers `patch` after rotation and zoom.

    nnU-Net's rule: +-30 degrees about every axis, or any angle in the plane when the patch is flat (its longest side
    more than three times the first). A zoom below one shows up to 1/0.7 of the side.
    """
    flat = max(patch) > 3 * patch[0]
    diagonal = 2**0.5 if flat else 1.0
    grown = tuple(int(-(-side * 1.2 * diagonal // 1)) for side in patch)
    if flat:
        return (180, 0, 0), (patch[0], *grown[1:])
    return (30, 30, 30), grown


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
