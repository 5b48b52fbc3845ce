"""The plan: how a data set is prepared and which network it gets, every choice with the number that led to it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.utils.atomic import write_json
from mamba_vision.volumes.label_scheme import LabelScheme
from mamba_vision.volumes.reading import GEOMETRY_FIXES
from mamba_vision.volumes.volume import VolumeError

SCHEMES = ("ct", "zscore", "rescale", "rgb", "none")
CONFIGURATIONS = ("3d_fullres", "2d", "3d_lowres", "3d_cascade_fullres")


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
        configuration: one of CONFIGURATIONS. In '2d' slices keep their distance whatever `spacing` says, and patches
            are one slice thick.
        regions, region_order, ignore_label: as in LabelScheme. With regions the network has one output a region.
        batch_dice: whether the Dice loss sums over the batch before it divides.
        reasons: field -> why it is what it is.

    Raises:
        ValueError: a field of another length, sign or name than its kind has, or fields that contradict each other.
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
    configuration: str = "3d_fullres"
    regions: dict[str, list[int]] = field(default_factory=dict)
    region_order: list[int] = field(default_factory=list)
    ignore_label: int | None = None
    batch_dice: bool = False
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
        if self.configuration not in CONFIGURATIONS:
            expected = ", ".join(CONFIGURATIONS)
            raise ValueError(f"configuration: expected one of {expected}, found {self.configuration!r}")
        if len(self.regions) != len(self.region_order) or not set(self.region_order) <= set(values):
            raise ValueError(f"region_order: expected a label a region {list(self.regions)}, found {self.region_order}")
        if self.slicewise and self.patch_size[0] != 1:
            raise ValueError(f"patch_size: expected one slice in '2d', found {self.patch_size}")

    @property
    def label_values(self) -> np.ndarray:
        """(classes,) value in label files of each class."""
        return np.array(list(self.labels.values()))

    @property
    def num_classes(self) -> int:
        """Exclusive classes, background included."""
        return len(self.labels)

    @property
    def num_outputs(self) -> int:
        """Outputs of the network: regions, or classes where there are none."""
        return len(self.regions) or len(self.labels)

    @property
    def region_classes(self) -> dict[str, list[int]]:
        """Region -> class numbers."""
        number = {value: index for index, value in enumerate(self.labels.values())}
        return {name: [number[value] for value in values] for name, values in self.regions.items()}

    @property
    def ignore_class(self) -> int | None:
        """Class number of voxels that do not count: the one behind the last class; None where all count."""
        return None if self.ignore_label is None else self.num_classes

    @property
    def slicewise(self) -> bool:
        """Whether the network sees single slices."""
        return self.configuration == "2d"

    @property
    def cascaded(self) -> bool:
        """Whether the network also sees, one-hot, the classes that a low-resolution network has found."""
        return self.configuration == "3d_cascade_fullres"

    @property
    def in_channels(self) -> int:
        """Channels that the network sees."""
        return len(self.channels) + (self.num_classes - 1 if self.cascaded else 0)

    @property
    def scheme(self) -> LabelScheme:
        """What the labels mean."""
        return LabelScheme(self.labels, self.regions, self.region_order, self.ignore_label)

    def spacing_for(self, spacing: Sequence[float]) -> tuple[float, float, float]:
        """What a scan of this spacing (mm, network axes) is resampled to: single slices keep their distance."""
        return (spacing[0], *self.spacing[1:]) if self.slicewise else self.spacing

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
        needed = {item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING}
        missing, unknown = sorted(needed - set(content)), sorted(set(content) - known)
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
