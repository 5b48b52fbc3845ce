"""A plans file of nnU-Net as plans of ours: for whoever switches, and wants the sizes that he had.

Read are the files of nnU-Net 2.0 and 2.1 (stages as `conv_kernel_sizes`, `pool_op_kernel_sizes` ...) and of 2.2 and
later (stages under `architecture`), with `inherits_from`. What has no counterpart here is told in notes, never guessed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mamba_vision.volumes.label_scheme import LabelScheme
from mamba_vision.volumes.plan import CONFIGURATIONS, Plan
from mamba_vision.volumes.planned_networks import MODELS, fit_network, network_arguments
from mamba_vision.volumes.planning import cascade_plan
from mamba_vision.volumes.topology import Topology, feature_widths
from mamba_vision.volumes.volume import VolumeError

_SCHEMES = {
    "CTNormalization": "ct", "ZScoreNormalization": "zscore", "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale", "RGBTo01Normalization": "rgb",
}  # fmt: skip
_KEPT = ("mean", "std", "percentile_00_5", "percentile_99_5")
_READERS_TO_CANONICAL = ("NibabelIOWithReorient",)  # others hand on axes as they are stored
_EXPECTED = "a plans file of nnU-Net v2, such as nnUNetPlans.json"


@dataclass(frozen=True)
class NnunetPlans:
    """A plans file with every `inherits_from` put in. `skipped` are configurations of names that are not nnU-Net's own.

    Attributes:
        path: of the file.
        content: what it holds, besides the configurations.
        configurations: the entries of each, as nnU-Net names them.
    """

    path: Path
    content: dict[str, Any]
    configurations: dict[str, dict[str, Any]]
    skipped: list[str] = field(default_factory=list)


def read_nnunet_plans(path: str | Path) -> NnunetPlans:
    """Read a plans file.

    Raises:
        VolumeError: no such file, no JSON, not nnU-Net v2's, or without one of its own configurations.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VolumeError(path, f"no readable JSON ({type(error).__name__})", _EXPECTED) from error
    if not isinstance(content, dict) or not isinstance(content.get("configurations"), dict):
        what = "plans of nnU-Net v1" if isinstance(content, dict) and "plans_per_stage" in content else "other JSON"
        raise VolumeError(path, what, _EXPECTED)
    if len(content.get("transpose_forward", ())) != 3:
        raise VolumeError(path, f"transpose_forward {content.get('transpose_forward')}", "an order of three axes")
    named = content["configurations"]
    own = {name: _inherited(path, named, name) for name in CONFIGURATIONS if name in named}
    if not own:
        raise VolumeError(path, f"the configurations {', '.join(named)}", f"one of {', '.join(CONFIGURATIONS)}")
    rest = {key: value for key, value in content.items() if key != "configurations"}
    return NnunetPlans(path, rest, own, sorted(set(named) - set(own)))


def plans_from_nnunet(
    theirs: NnunetPlans,
    dataset: str,
    channels: Sequence[str],
    scheme: LabelScheme,
    affine: np.ndarray,
    *,
    model: str = "umamba_bot",
    configurations: Sequence[str] | None = None,
    fix_geometry: str = "error",
) -> tuple[dict[str, Plan], list[str]]:
    """Plans by configuration, the main one first, and in words what could not be taken over.

    Args:
        theirs: of read_nnunet_plans.
        dataset, channels, scheme, fix_geometry: as for planning.make_plans.
        affine: (4, 4) of a scan: nnU-Net's axes are those of the files, ours the patient's.
        model: a key of MODELS.
        configurations: which; by default 3d_fullres and what belongs to it (2d, where there is nothing else).

    Raises:
        ValueError: an unknown model, or a configuration that the file does not have or the model can't do.
        VolumeError: entries that are missing or do not fit the data set.
    """
    if model not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, found {model!r}")
    names = list(configurations or [name for name in CONFIGURATIONS if name in theirs.configurations and name != "2d"])
    names = names or ["2d"]
    if unknown := [name for name in names if name not in theirs.configurations]:
        found = ", ".join(theirs.configurations)
        raise ValueError(f"configurations: {theirs.path} has {found}, but not {', '.join(unknown)}")
    if "3d_cascade_fullres" in names and "3d_lowres" not in names:
        raise ValueError("configurations: 3d_cascade_fullres goes on from 3d_lowres; name both")
    base = {
        "dataset": dataset, "channels": list(channels), "labels": dict(scheme.labels), "fix_geometry": fix_geometry,
        "axes": _axes(theirs, affine), "intensities": _intensities(theirs, len(channels)),
        "regions": dict(scheme.regions), "region_order": list(scheme.region_order), "ignore_label": scheme.ignore_label,
    }  # fmt: skip
    plans, notes = {}, _lost(theirs, names, model)
    for name in names:
        if name == "3d_cascade_fullres":
            full = _plan(theirs, name, {**base, "configuration": "3d_fullres"}, scheme, model)
            plans[name] = cascade_plan(full, scheme)
        else:
            plans[name] = _plan(theirs, name, {**base, "configuration": name}, scheme, model)
    return plans, notes


def _plan(theirs: NnunetPlans, name: str, base: Mapping[str, Any], scheme: LabelScheme, model: str) -> Plan:
    entries, flat = theirs.configurations[name], name == "2d"
    try:
        patch, spacing = list(map(int, entries["patch_size"])), list(map(float, entries["spacing"]))
        median = [round(float(side)) for side in entries["median_image_size_in_voxels"]]
        normalization = [_SCHEMES.get(one.rpartition(".")[2], one) for one in entries["normalization_schemes"]]
        batch, masks = int(entries["batch_size"]), [bool(one) for one in entries["use_mask_for_norm"]]
        widths, strides, kernels, blocks = _stages(entries)
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(theirs.path, f"{name}: {type(error).__name__} {error}", _EXPECTED) from error
    if flat:  # slices keep their distance, so that only pictures of the plan show this number
        median = median if len(median) == 3 else [_third(theirs, "original_median_shape_after_transp", 1), *median]
        spacing = [float(_third(theirs, "original_median_spacing_after_transp", 1.0)), *spacing]
    topology = fit_network(model, Topology(tuple(patch), strides, kernels))
    outputs = len(scheme.regions) or len(scheme.labels)
    network = network_arguments(model, topology, len(base["channels"]), outputs, widths[0])
    if MODELS[model].stages:
        network["features"] = list(widths)
    if network["type"] == "UMamba":
        network["n_blocks"] = blocks
    source = f"{theirs.path.name}, {name}"
    reasons = dict.fromkeys(("spacing", "axes", "patch_size", "batch_size", "normalization", "network"), source)
    return Plan(
        **base, spacing=tuple(spacing), patch_size=(*(1,) * flat, *topology.patch_size), batch_size=batch,
        normalization=normalization, use_mask=masks, network=network, median_shape=tuple(max(n, 1) for n in median),
        batch_dice=bool(entries.get("batch_dice", flat)), reasons=reasons,
    )  # fmt: skip


def _stages(entries: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple, tuple, int | list[int]]:
    """Widths, strides, kernels and blocks a stage, of either form of the file."""
    if "architecture" in entries:
        stages = entries["architecture"]["arch_kwargs"]
        kernels, strides, widths = stages["kernel_sizes"], stages["strides"], stages["features_per_stage"]
        blocks = stages.get("n_blocks_per_stage", stages.get("n_conv_per_stage", 2))
    else:
        kernels, strides = entries["conv_kernel_sizes"], entries["pool_op_kernel_sizes"]
        widths = feature_widths(len(strides), entries["UNet_base_num_features"], entries["unet_max_num_features"])
        blocks = entries["n_conv_per_stage_encoder"]
    if not len(kernels) == len(strides) == len(widths):
        raise ValueError(f"{len(kernels)} kernels, {len(strides)} strides and {len(widths)} widths")
    dims = len(entries["patch_size"])
    kernels, strides = (
        tuple(tuple(map(int, one)) if isinstance(one, Sequence) else (int(one),) * dims for one in values)
        for values in (kernels, strides)
    )
    blocks = [int(one) for one in blocks] if isinstance(blocks, Sequence) else [int(blocks)] * len(widths)
    return tuple(map(int, widths)), strides, kernels, blocks[0] if len(set(blocks)) == 1 else blocks


def _inherited(path: Path, named: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The entries of a configuration over those that it inherits."""
    chain, entries = [], {}
    while name is not None:
        if name in chain or not isinstance(named.get(name), dict):
            raise VolumeError(path, f"a configuration that inherits from {name!r}", "one that the file has")
        chain.append(name)
        entries = {**named[name], **entries}
        name = named[name].get("inherits_from")
    return entries


def _axes(theirs: NnunetPlans, affine: np.ndarray) -> tuple[int, int, int]:
    """The canonical axis of each network axis: nnU-Net reads files as z, y, x, then transposes."""
    stored = [2 - int(axis) for axis in theirs.content["transpose_forward"]]
    if theirs.content.get("image_reader_writer") in _READERS_TO_CANONICAL:
        return tuple(stored)
    canonical = nib.io_orientation(affine)[:, 0]
    return tuple(int(canonical[axis]) for axis in stored)


def _intensities(theirs: NnunetPlans, channels: int) -> list[dict[str, float]]:
    found = theirs.content.get("foreground_intensity_properties_per_channel") or {}
    try:
        numbers = [{key: float(found[str(channel)][key]) for key in _KEPT} for channel in range(len(found))]
    except (KeyError, TypeError, ValueError) as error:
        expected = "foreground_intensity_properties_per_channel with mean, std and percentiles"
        raise VolumeError(theirs.path, f"{type(error).__name__} {error}", expected) from error
    if len(numbers) != channels:
        cure = "Are these the plans of this data set?"
        raise VolumeError(theirs.path, f"intensities of {len(numbers)} channels", f"of {channels}", cure)
    return numbers


def _lost(theirs: NnunetPlans, names: Sequence[str], model: str) -> list[str]:
    """What the plans of `names` say that has no counterpart here."""
    file, notes = theirs.path.name, []
    networks, blocks, resampling = set(), set(), set()
    for name in names:
        entries = theirs.configurations[name]
        architecture = entries.get("architecture") or {}
        networks.add(str(architecture.get("network_class_name", entries.get("UNet_class_name"))).rpartition(".")[2])
        blocks.add("n_blocks_per_stage" in architecture.get("arch_kwargs", {}))
        resampling |= {
            str(value) for key, value in entries.items() if key.startswith("resampling_fn") and key[-1] != "s"
        }
    ours = MODELS[model].arguments["type"]
    if MODELS[model].stages:
        same = networks == {"PlainConvUNet"} and ours == "PlainUNet"
        notes += [] if same else [f"{file} names {' and '.join(sorted(networks))}: {ours} gets its stages instead."]
        if True in blocks and ours == "PlainUNet":
            notes.append(f"{file} has residual blocks; PlainUNet has two convolutions a stage.")
    else:
        notes.append(f"{file}: the stages of {' and '.join(sorted(networks))} are left out; {ours} has its own.")
    if ours != "PlainUNet":
        notes.append(f"The batch of {file} was fitted to nnU-Net's network; {ours} may need more memory: --batch-size.")
    if resampling - {"resample_data_or_seg_to_shape"}:
        others = ", ".join(sorted(resampling - {"resample_data_or_seg_to_shape"}))
        notes.append(f"{file} resamples by {others}; here it is nnU-Net's default (cubic, labels linear).")
    if theirs.skipped:
        notes.append(f"{file} also has {', '.join(theirs.skipped)}, which are left out: not nnU-Net's own names.")
    return notes


def _third(theirs: NnunetPlans, key: str, otherwise: float) -> float:
    """The first entry of what the file says of the data set's median, along the network's axes."""
    found = theirs.content.get(key)
    return found[0] if isinstance(found, list) and found else otherwise
