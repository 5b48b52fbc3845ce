"""The plan: how a data set is prepared and which network it gets, every choice with the number that led to it.

The rules are nnU-Net's (Isensee et al., Nature Methods 18, 2021) for its configuration 3d_fullres. Nothing here is
learnt; a plan follows from the fingerprint alone, and whoever knows better overrides it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.utils.atomic import write_json
from mamba_vision.volumes import topology
from mamba_vision.volumes.fingerprint import Fingerprint
from mamba_vision.volumes.reading import GEOMETRY_FIXES
from mamba_vision.volumes.topology import Topology
from mamba_vision.volumes.volume import VolumeError

SCHEMES = ("ct", "zscore", "rescale", "rgb", "none")
_SCHEME_OF = {
    "ct": "ct", "nonorm": "none", "none": "none", "zscore": "zscore", "rescale_to_0_1": "rescale",
    "rescale": "rescale", "rgb_to_0_1": "rgb", "rgb": "rgb",
}  # fmt: skip
_MASK_BELOW = 0.75  # median share left by the crop: below it, z-scores are taken inside the non-zero mask only
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

# Class in mamba_vision.models and what sets the variant apart.
MODELS = {
    "umamba_bot": {"type": "UMamba", "placement": "bot"},
    "umamba_enc": {"type": "UMamba", "placement": "enc"},
}


@dataclass(frozen=True)
class Plan:
    """Everything that preparing, training and segmenting must agree on. "Network axes" are those of the arrays that
    the network sees; network axis i is the canonical axis axes[i] (0 to the right, 1 to the front, 2 up).

    Attributes:
        dataset: its name.
        channels: names, in order.
        labels: name -> value in the label files, background (0) first, ascending. Class i of the network is the i-th.
        axes: canonical axis of each network axis; the coarsest comes first.
        spacing: mm, along the network axes.
        patch_size: voxels, along the network axes.
        batch_size: patches.
        normalization: one of SCHEMES a channel.
        use_mask: a channel: whether the z-score looks at the non-zero region only and leaves 0 outside.
        intensities: a channel: the data set's foreground mean, std, percentile_00_5, percentile_99_5.
        network: type and arguments for MODELS.build.
        median_shape: of the data set at `spacing`, along the network axes.
        fix_geometry: what is done to channels and labels in another grid than their scan: 'error', 'resample', 'copy'.
        reasons: field -> why it is what it is.
    """

    dataset: str
    channels: list[str]
    labels: dict[str, int]
    axes: tuple[int, int, int]
    spacing: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    batch_size: int
    normalization: list[str]
    use_mask: list[bool]
    intensities: list[dict[str, float]]
    network: dict[str, Any]
    median_shape: tuple[int, int, int]
    fix_geometry: str = "error"
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("axes", "spacing", "patch_size", "median_shape"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name}: expected 3 numbers, found {getattr(self, name)}")
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError(f"axes: expected an order of 0, 1, 2, found {self.axes}")
        if min(self.spacing) <= 0 or min(self.patch_size) < 1 or self.batch_size < 1:
            raise ValueError(
                f"plan: expected positive sizes, found {self.spacing}, {self.patch_size}, {self.batch_size}"
            )
        for name in ("normalization", "use_mask", "intensities"):
            if len(getattr(self, name)) != len(self.channels):
                raise ValueError(f"{name}: expected one entry a channel {self.channels}, found {getattr(self, name)}")
        if self.fix_geometry not in GEOMETRY_FIXES:
            raise ValueError(f"fix_geometry: expected one of {', '.join(GEOMETRY_FIXES)}, found {self.fix_geometry!r}")
        for scheme in self.normalization:
            if scheme not in SCHEMES:
                raise ValueError(f"normalization: expected one of {', '.join(SCHEMES)}, found {scheme!r}")
        values = list(self.labels.values())
        if not values or values[0] != 0 or values != sorted(set(values)):
            raise ValueError(f"labels: expected background 0 first, then ascending values, found {self.labels}")

    @property
    def label_values(self) -> np.ndarray:
        """(classes,) value in label files of each class of the network."""
        return np.array(list(self.labels.values()))

    @property
    def num_classes(self) -> int:
        """Classes of the network, background included."""
        return len(self.labels)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str | Path = "plan") -> "Plan":
        """The inverse of to_dict.

        Raises:
            VolumeError: missing, misspelt or impossible entries.
        """
        known = {item.name for item in fields(cls)}
        missing, unknown = sorted(known - {"reasons", "fix_geometry"} - set(content)), sorted(set(content) - known)
        if missing or unknown:
            parts = [f"no {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
            raise VolumeError(source, " and ".join(parts), f"the entries {', '.join(sorted(known))}")
        try:
            return cls(**content)
        except (ValueError, TypeError) as e:
            raise VolumeError(source, str(e), "a plan as tools/plan.py writes it") from e

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically."""
        return write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """Read what save() wrote.

        Raises:
            VolumeError: no such file, no JSON, or as from_dict.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as e:
            raise VolumeError(path, "no readable file", "a plan.json", "Make it with tools/plan.py") from e
        except ValueError as e:
            raise VolumeError(path, f"no JSON ({e})", "a plan.json", "Make it with tools/plan.py") from e
        if not isinstance(content, dict):
            raise VolumeError(path, f"a {type(content).__name__}", "a plan.json")
        return cls.from_dict(content, path)


def make_plan(
    fingerprint: Fingerprint,
    dataset: str,
    channels: Sequence[str],
    labels: Mapping[str, int],
    *,
    model: str = "umamba_bot",
    preset: str = "default",
    vram_gb: float | None = None,
    spacing: Sequence[float] | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    fix_geometry: str = "error",
) -> Plan:
    """The plan for a data set.

    Args:
        fingerprint: of its cases.
        dataset: its name.
        channels: names; 'CT', 'zscore', 'rescale_to_0_1', 'rgb_to_0_1' and 'noNorm' choose a normalization, any other
            name means z-score.
        labels: name -> value, background 0 first.
        model: a key of MODELS.
        preset: a key of PRESETS.
        vram_gb: GPU memory to plan for, instead of the preset's.
        spacing: mm along left-right, back-front, down-up, instead of the data's median.
        patch_size: voxels along the same axes, instead of the largest that fits; rounded up to what the
            network divides.
        batch_size: patches, instead of what fits.
        fix_geometry: as in Plan.

    Raises:
        ValueError: an unknown model or preset, or sizes that are not positive.
    """
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
    chosen, reasons = PRESETS[preset], {}
    gigabytes = vram_gb if vram_gb is not None else chosen.vram_gb
    canonical, reasons["spacing"] = _target_spacing(fingerprint, spacing)
    axes = _axes(canonical)
    reasons["axes"] = (
        f"the coarsest axis, {_CANONICAL_NAMES[axes[0]]} with {canonical[axes[0]]:.4g} mm, comes first"
        if max(canonical) > min(canonical)
        else "isotropic: axial slices first"
    )
    target = tuple(float(canonical[axis]) for axis in axes)
    shapes = np.array([resampled_shape(case.cropped_shape, case.spacing, canonical) for case in fingerprint.cases])
    median = np.median(shapes, axis=0)[list(axes)]
    voxels = float(median.prod()) * len(shapes)
    if patch_size is None:
        found, reasons["patch_size"] = _patch(target, median, len(labels), gigabytes)
    else:
        found = _deep_enough(target, [patch_size[axis] for axis in axes])
        reasons["patch_size"] = (
            f"as asked, {_by(patch_size)} (left-right, back-front, down-up), rounded up to multiples"
        )
    fits = topology.fit_batch(found, len(labels), voxels, gigabytes)
    if batch_size is None:
        reasons["batch_size"] = (
            f"what {gigabytes:g} GB hold, at most {topology.MAX_SHARE:.0%} of the data set's "
            f"{voxels / 1e6:.3g} million voxels, at least {topology.MIN_BATCH}"
        )
    else:
        fits, reasons["batch_size"] = int(batch_size), "as asked"
    schemes, masks, reasons["normalization"] = _normalization(channels, fingerprint)
    widths = topology.feature_widths(len(found.strides), chosen.base_features, chosen.base_features * 10)
    reasons["network"] = (
        f"{len(found.strides)} stages: an axis is halved while it has {2 * topology.MIN_EDGE} voxels and is not "
        f"coarser than the others; {chosen.why}"
    )
    network = {
        **MODELS[model],
        "spatial_dims": 3,
        "in_channels": len(channels),
        "num_classes": len(labels),
        "features": list(widths),
        "kernel_sizes": [list(kernel) for kernel in found.kernel_sizes],
        "strides": [list(stride) for stride in found.strides],
        "n_blocks": 2,
        "patch_size": list(found.patch_size),
        "deep_supervision": True,
    }
    kept = ("mean", "std", "percentile_00_5", "percentile_99_5")
    return Plan(
        dataset, list(channels), dict(labels), axes, target, found.patch_size, fits, schemes, masks,
        [{key: getattr(channel, key) for key in kept} for channel in fingerprint.intensities],
        network, tuple(round(float(side)) for side in median), fix_geometry, reasons,
    )  # fmt: skip


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Voxels that a volume has at another spacing (mm)."""
    return tuple(max(round(old / new * side), 1) for side, old, new in zip(shape, spacing, target))


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


def _axes(canonical: np.ndarray) -> tuple[int, int, int]:
    """The coarsest axis first, the others in the order z, y, x; between equals, z before y before x."""
    order = [2, 1, 0]
    first = max(order, key=lambda axis: canonical[axis])
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
