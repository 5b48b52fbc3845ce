"""From a fingerprint to plans: which configurations a data set calls for, and every choice in them with its reason.

The rules are nnU-Net's (Isensee et al., Nature Methods 18, 2021). Nothing here is learnt; a plan follows from the
fingerprint alone, and whoever knows better overrides it. tests/volumes/nnunet_plans.json holds what nnU-Net itself
answers for a number of data sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mamba_vision.volumes import topology
from mamba_vision.volumes.fingerprint import Fingerprint
from mamba_vision.volumes.label_scheme import LabelScheme
from mamba_vision.volumes.plan import CONFIGURATIONS, Plan
from mamba_vision.volumes.planned_networks import MODELS, fit_network, network_arguments
from mamba_vision.volumes.topology import Topology

_SCHEME_OF = {
    "ct": "ct", "nonorm": "none", "none": "none", "zscore": "zscore", "rescale_to_0_1": "rescale",
    "rescale": "rescale", "rgb_to_0_1": "rgb", "rgb": "rgb",
}  # fmt: skip
_MASK_BELOW = 0.75  # median share left by the crop: below it, z-scores are taken inside the non-zero mask only
_LOWRES_BELOW = 0.25  # share of the median case in a patch: below it, a low resolution is planned too
_LOWRES_STEP = 1.03  # the spacing grows by this factor until a patch covers that share
_LEAST_SHRINK = 2  # a low resolution that has not at least this many times fewer voxels is dropped
_CANONICAL_NAMES = ("left-right", "back-front", "down-up")


@dataclass(frozen=True)
class Preset:
    """What a plan is made for: GPU memory in GB as nnU-Net counts it, and the width of the first stage."""

    vram_gb: float
    base_features: int
    why: str


PRESETS = {
    "fast": Preset(0.25, 8, "a small network and patch, for two CPU cores"),
    "default": Preset(8, 32, "nnU-Net's default, a GPU with 8 to 12 GB"),
    "best": Preset(24, 32, "larger patches, a GPU with 24 GB or more"),
}


def make_plan(
    fingerprint: Fingerprint, dataset: str, channels: Sequence[str], labels: Mapping[str, int] | LabelScheme,
    *, configuration: str = "3d_fullres", **options: Any,
) -> Plan:  # fmt: skip
    """One configuration of `make_plans`, whether or not the rules call for it; the options are those of make_plans."""
    wanted = [configuration, *(["3d_lowres"] if configuration == "3d_cascade_fullres" else [])]
    return make_plans(fingerprint, dataset, channels, labels, configurations=wanted, **options)[configuration]


def make_plans(
    fingerprint: Fingerprint,
    dataset: str,
    channels: Sequence[str],
    labels: Mapping[str, int] | LabelScheme,
    *,
    configurations: Sequence[str] | None = None,
    model: str = "umamba_bot",
    preset: str = "default",
    vram_gb: float | None = None,
    spacing: Sequence[float] | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    fix_geometry: str = "error",
) -> dict[str, Plan]:
    """Plans for a data set, by configuration, the main one first.

    Without `configurations` these are 3d_fullres; 2d where slices lie more than three times as far apart as pixels (for
    data of single slices it is the only one); 3d_lowres and 3d_cascade_fullres where a patch covers less than a quarter
    of the median case and a low resolution has at most half of its voxels.

    Args:
        fingerprint: of its cases.
        dataset: its name.
        channels: names; 'CT', 'zscore', 'rescale_to_0_1', 'rgb_to_0_1' and 'noNorm' choose a normalization, any other
            name means z-score.
        labels: name -> value, background 0 first; or a LabelScheme, for regions and ignored voxels.
        configurations: some of CONFIGURATIONS, in place of what the rules call for.
        model: a key of MODELS.
        preset: a key of PRESETS.
        vram_gb: GPU memory to plan for, instead of the preset's.
        spacing: mm along left-right, back-front, down-up, instead of the data's median.
        patch_size: voxels along the same axes, instead of the largest that fits; rounded up to what the
            network divides.
        batch_size: patches, instead of what fits.
        fix_geometry: as in Plan.

    Raises:
        ValueError: an unknown model, preset or configuration, sizes that are not positive, a cascade without its low
            resolution or as the main configuration, or a low resolution that the data are too small for.
    """
    _check(fingerprint, model, preset, configurations, spacing, patch_size, vram_gb, batch_size)
    scheme = labels if isinstance(labels, LabelScheme) else LabelScheme(dict(labels))
    gigabytes = vram_gb if vram_gb is not None else PRESETS[preset].vram_gb
    canonical, spacing_why = _target_spacing(fingerprint, spacing)
    single = [axis for axis in range(3) if all(case.shape[axis] == 1 for case in fingerprint.cases)]
    axes = _axes(canonical, single)
    target = np.array([canonical[axis] for axis in axes])
    shapes = [resampled_shape(case.cropped_shape, case.spacing, canonical) for case in fingerprint.cases]
    median = np.median(shapes, axis=0)[list(axes)]
    median[0] = 1 if single else median[0]  # whatever its thickness, a slice is one
    asked = None if patch_size is None else [patch_size[axis] for axis in axes]
    build = _Builder(scheme, model, preset, gigabytes, asked, batch_size, len(shapes))
    schemes, masks, normalization_why = _normalization(channels, fingerprint)
    kept = ("mean", "std", "percentile_00_5", "percentile_99_5")
    reasons = {
        "spacing": spacing_why,
        "axes": f"single slices: {_CANONICAL_NAMES[axes[0]]}, which has one voxel, comes first"
        if single
        else f"the coarsest axis, {_CANONICAL_NAMES[axes[0]]} with {canonical[axes[0]]:.4g} mm, comes first"
        if max(canonical) > min(canonical)
        else "isotropic: axial slices first",
        "normalization": normalization_why,
    }
    base = {
        "dataset": dataset, "channels": list(channels), "labels": dict(scheme.labels), "axes": axes,
        "normalization": schemes, "use_mask": masks,
        "intensities": [{key: getattr(channel, key) for key in kept} for channel in fingerprint.intensities],
        "fix_geometry": fix_geometry, "regions": dict(scheme.regions), "region_order": list(scheme.region_order),
        "ignore_label": scheme.ignore_label,
    }  # fmt: skip
    flat = median[0] == 1
    volumes_possible = not flat and 3 in MODELS[model].dims
    full = build(base, "3d_fullres", target, median, reasons) if volumes_possible else None
    low = None
    if full and (configurations is None or "3d_lowres" in configurations):
        low = _low_resolution(build, base, full, median, reasons)
    anisotropic = target.max() > topology.ANISOTROPY * target.min() and 2 in MODELS[model].dims
    if configurations is None:
        configurations = ["3d_fullres"] if full else ["2d"]
        configurations += ["2d"] * bool(full and anisotropic) + ["3d_lowres", "3d_cascade_fullres"] * bool(low)
    plans = {}
    for name in configurations:
        if name == "2d":
            plans[name] = build(base, "2d", target, median, reasons)
        elif full is None:
            raise ValueError(f"configurations: {name} wants volumes; the data are single slices: choose 2d")
        elif name != "3d_fullres" and low is None:
            share = np.prod(full.patch_size) / median.prod()
            raise ValueError(
                f"configurations: {name} is not for these data: the patch {_by(full.patch_size)} is {share:.0%} of the "
                f"median case; expected below {_LOWRES_BELOW:.0%}, and so much that the low resolution has "
                f"1/{_LEAST_SHRINK} of the voxels or fewer (a smaller --patch-size)"
            )
        else:
            plans[name] = {"3d_fullres": full, "3d_lowres": low}.get(name) or cascade_plan(full, scheme)
    if low is not None:  # with a cascade in sight, nnU-Net sums the Dice of 3d_fullres over the batch
        for name in plans.keys() & {"3d_fullres", "3d_cascade_fullres"}:
            plans[name] = replace(plans[name], batch_dice=True)
    return plans


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Voxels that a volume has at another spacing (mm)."""
    return tuple(max(round(old / new * side), 1) for side, old, new in zip(shape, spacing, target))


@dataclass(frozen=True)
class _Builder:
    """Plans one configuration at a spacing (mm) and median shape along the network's axes."""

    scheme: LabelScheme
    model: str
    preset: str
    gigabytes: float
    patch_size: Sequence[int] | None
    batch_size: int | None
    cases: int

    def __call__(
        self, base: Mapping[str, Any], configuration: str, spacing: np.ndarray, median: np.ndarray, reasons: Mapping
    ) -> Plan:
        first = 1 if configuration == "2d" else 0
        # nnU-Net counts every entry of dataset.json's labels, background and 'ignore' too.
        counted = (len(self.scheme.regions) + 1 if self.scheme.regions else len(self.scheme.labels)) + (
            self.scheme.ignore_label is not None
        )
        reasons = dict(reasons)
        if self.patch_size is None:
            found, reasons["patch_size"] = _patch(spacing[first:], median[first:], counted, self.gigabytes)
        else:
            found = _deep_enough(spacing[first:], self.patch_size[first:])
            reasons["patch_size"] = f"as asked, {_by(self.patch_size)} (network axes), rounded up to multiples"
        found = fit_network(self.model, found)
        batch = topology.fit_batch(found, counted, float(median.prod()) * self.cases, self.gigabytes)
        reasons["batch_size"] = (
            f"what {self.gigabytes:g} GB hold, at most {topology.MAX_SHARE:.0%} of the data set's "
            f"{median.prod() * self.cases / 1e6:.3g} million voxels, at least {topology.MIN_BATCH}"
        )
        if self.batch_size is not None:
            batch, reasons["batch_size"] = int(self.batch_size), "as asked"
        chosen = PRESETS[self.preset]
        reasons["network"] = (
            f"{len(found.strides)} stages: an axis is halved while it has {2 * topology.MIN_EDGE} voxels and is not "
            f"coarser than the others; {chosen.why}"
            if MODELS[self.model].stages
            else f"stages of its own; {chosen.why}"
        )
        if first:
            reasons["configuration"] = "single slices, each as far from the next as in its own scan"
        outputs = len(self.scheme.regions) or len(self.scheme.labels)
        network = network_arguments(self.model, found, len(base["channels"]), outputs, chosen.base_features)
        return Plan(
            **base, spacing=tuple(map(float, spacing)), patch_size=(*(1,) * first, *found.patch_size),
            batch_size=batch, network=network, median_shape=tuple(round(float(side)) for side in median),
            configuration=configuration, batch_dice=configuration == "2d", reasons=reasons,
        )  # fmt: skip


def _low_resolution(
    build: _Builder, base: Mapping[str, Any], full: Plan, median: np.ndarray, reasons: Mapping
) -> Plan | None:
    """3d_lowres: the spacing grown, coarser than twice the finest axis last, until a patch covers a quarter."""
    fine = np.array(full.spacing)
    spacing, plan, shape = fine.copy(), full, median
    while np.prod(plan.patch_size) / np.prod(shape) < _LOWRES_BELOW:
        finer = spacing.max() / spacing > 2
        spacing = np.where(finer, spacing * _LOWRES_STEP, spacing) if finer.any() else spacing * _LOWRES_STEP
        shape = fine / spacing * median
        why = (
            f"{_by(spacing)} mm (network axes): grown from {_by(fine)} mm until a patch covers "
            f"{_LOWRES_BELOW:.0%} of the median case"
        )
        plan = build(base, "3d_lowres", spacing, np.array([round(side) for side in shape]), {**reasons, "spacing": why})
    if plan is full or median.prod() / np.prod(shape) < _LEAST_SHRINK:
        return None
    return plan


def cascade_plan(full: Plan, scheme: LabelScheme) -> Plan:
    """3d_fullres, whose network also sees what 3d_lowres found, a channel a label."""
    plan = replace(full, configuration="3d_cascade_fullres")
    why = f"{full.reasons['network']}; {len(scheme.labels) - 1} channels more: the labels found by 3d_lowres"
    return replace(
        plan, network={**full.network, "in_channels": plan.in_channels}, reasons={**full.reasons, "network": why}
    )


def _check(
    fingerprint: Fingerprint, model: str, preset: str, configurations: Sequence[str] | None,
    spacing: Sequence[float] | None, patch_size: Sequence[int] | None, vram_gb: float | None, batch_size: int | None,
) -> None:  # fmt: skip
    for name, value, table in (("model", model, MODELS), ("preset", preset, PRESETS)):
        if value not in table:
            raise ValueError(f"{name}: expected one of {', '.join(table)}, found {value!r}")
    for name, value in (("spacing", spacing), ("patch_size", patch_size)):
        if value is not None and (len(value) != 3 or min(value) <= 0):
            raise ValueError(f"{name}: expected three positive numbers, found {value}")
    for name, value in (("vram_gb", vram_gb), ("batch_size", batch_size)):
        if value is not None and value <= 0:
            raise ValueError(f"{name}: expected a number above 0, found {value}")
    if not fingerprint.cases:
        raise ValueError("fingerprint: expected at least one case, found none")
    if configurations is None:
        return
    if not configurations or len(set(configurations)) < len(configurations):
        raise ValueError(f"configurations: expected distinct names, found {list(configurations)}")
    for name in configurations:
        if name not in CONFIGURATIONS:
            raise ValueError(f"configurations: expected some of {', '.join(CONFIGURATIONS)}, found {name!r}")
    if "3d_cascade_fullres" in configurations and "3d_lowres" not in configurations:
        raise ValueError("configurations: 3d_cascade_fullres goes on from 3d_lowres; name both")


def _target_spacing(fingerprint: Fingerprint, asked: Sequence[float] | None) -> tuple[np.ndarray, str]:
    """mm along canonical x, y, z, and why."""
    if asked is not None:
        return np.array(asked, dtype=np.float64), f"as asked, {_by(asked)} mm (left-right, back-front, down-up)"
    spacings = np.array([case.spacing for case in fingerprint.cases])
    target, size = np.median(spacings, axis=0), np.median([case.cropped_shape for case in fingerprint.cases], axis=0)
    count = f"median of {len(spacings)} cases" if len(spacings) > 1 else "the only case's"
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    finer = target[others].max()
    coarse = target[worst] > topology.ANISOTROPY * finer and size[worst] * topology.ANISOTROPY < size[others].min()
    if not coarse:
        return target, f"{_by(target)} mm (left-right, back-front, down-up): {count}"
    median = target[worst]
    target[worst] = np.percentile(spacings[:, worst], 10)
    if target[worst] < finer:
        target[worst] = finer + 1e-5
    return target, (
        f"{_by(target)} mm (left-right, back-front, down-up): {count}, but {_CANONICAL_NAMES[worst]}, whose median "
        f"{median:.4g} mm is more than {topology.ANISOTROPY} times coarser, the 10th percentile"
    )


def _axes(canonical: np.ndarray, single: Sequence[int] = ()) -> tuple[int, int, int]:
    """The axis of one voxel first, else the coarsest; then z, y, x; between equals, z before y before x."""
    order = [2, 1, 0]
    first = max(single or order, key=lambda axis: canonical[axis])
    return (first, *(axis for axis in order if axis != first))


def _patch(spacing: Sequence[float], median: np.ndarray, classes: int, gigabytes: float) -> tuple[Topology, str]:
    largest = topology.make_topology(spacing, median)
    found = topology.fit_patch(spacing, median, classes, gigabytes)
    found = found if len(found.strides) > 1 else _deep_enough(spacing, found.patch_size)
    if found.patch_size == largest.patch_size:
        why = f"the median case ({_by(median)} voxels) as a whole"
    else:
        why = f"the largest part of the median case ({_by(median)} voxels) that trains in {gigabytes:g} GB"
    if (np.array(found.patch_size) > np.maximum(median, 1) + np.array(found.divisor)).any():
        why += "; the scans are smaller than the smallest patch a U-Net can pool and are padded"
    return found, f"{why}, a multiple of {_by(found.divisor)}"


def _deep_enough(spacing: Sequence[float], patch: Sequence[int]) -> Topology:
    """The topology for a patch; one too small to be pooled even once is enlarged until it can be."""
    found = topology.make_topology(spacing, patch)
    if len(found.strides) > 1:
        return found
    smallest = 3 * topology.MIN_EDGE if len(set(map(float, spacing))) > 1 else 2 * topology.MIN_EDGE
    return topology.make_topology(spacing, [max(side, smallest) for side in patch])


def _normalization(channels: Sequence[str], fingerprint: Fingerprint) -> tuple[list[str], list[bool], str]:
    schemes = [_SCHEME_OF.get(name.lower(), "zscore") for name in channels]
    share = fingerprint.relative_size
    masks = [scheme == "zscore" and share < _MASK_BELOW for scheme in schemes]
    parts = []
    for name, scheme, mask, numbers in zip(channels, schemes, masks, fingerprint.intensities):
        if scheme == "ct":
            parts.append(
                f"{name}: clipped to {numbers.percentile_00_5:.4g} ... {numbers.percentile_99_5:.4g}, then minus "
                f"{numbers.mean:.4g}, over {numbers.std:.4g} (foreground of the data set)"
            )
        elif scheme == "zscore":
            region = f"inside the non-zero region, as the crop leaves {share:.0%}" if mask else "of the cropped scan"
            parts.append(f"{name}: z-score a scan, {region}")
        else:
            parts.append(f"{name}: {scheme}")
    return schemes, masks, "; ".join(parts)


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)
