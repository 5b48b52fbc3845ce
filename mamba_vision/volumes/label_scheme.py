"""What the values in label files mean: exclusive labels, regions that overlap, and voxels that nobody annotated.

As in nnU-Net's dataset.json: a label given as a list of values is a region (the whole tumour is oedema, necrosis and
enhancing tumour together), `regions_class_order` says which value each region paints into the result, one over the
other, and a label called 'ignore' (the highest value) marks voxels that neither training nor scores look at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mamba_vision.volumes.volume import VolumeError

IGNORE = "ignore"
_HIGHEST = 65535


@dataclass(frozen=True)
class LabelScheme:
    """Labels of a data set.

    Attributes:
        labels: name -> value, background (0) first, values ascending; without 'ignore'. Empty: nobody said.
        regions: name -> values; the network then has one output a region. Empty: labels exclude one another.
        region_order: the value that each region paints into a segmentation, in the order of painting.
        ignore_label: value of voxels that do not count, or None.
    """

    labels: dict[str, int] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    region_order: list[int] = field(default_factory=list)
    ignore_label: int | None = None

    @property
    def values(self) -> list[int]:
        """Every value that a label file may hold, ascending."""
        return [*self.labels.values(), *([] if self.ignore_label is None else [self.ignore_label])]


def read_label_scheme(labels: Mapping, source: str | Path, region_order: Sequence[int] | None = None) -> LabelScheme:
    """From the `labels` of a dataset.json (and its `regions_class_order`); accepts {"0": "background"} too.

    Where there are regions the values get names of their own: that of the region which paints them, with ' only' behind
    it if the region holds other values too.

    Raises:
        VolumeError: values that are no distinct whole numbers, no background 0, no other label, an 'ignore' that is not
            the highest value, or an order that does not fit the regions.
    """
    if labels and all(str(key).isdigit() and isinstance(value, str) for key, value in labels.items()):
        labels = {value: int(key) for key, value in labels.items()}
    single = {str(name): _value(name, value, source) for name, value in labels.items() if not _is_list(value)}
    if not any(_is_list(value) for value in labels.values()):
        ignore = _take_ignore(single, source)
        return LabelScheme(_checked(single, ignore, source), ignore_label=ignore)
    ignore = _take_ignore(single, source)
    regions = {
        str(name): sorted({_value(name, one, source) for one in value}) if _is_list(value) else [single[str(name)]]
        for name, value in labels.items()
        if str(name).lower() != IGNORE
    }
    regions = {name: values for name, values in regions.items() if values != [0]}
    order = [_value("regions_class_order", value, source) for value in region_order or ()]
    known = sorted({value for values in regions.values() for value in values})
    if len(order) != len(regions) or len(set(order)) != len(order) or not set(order) <= set(known) - {0}:
        raise VolumeError(
            source, f"regions_class_order {list(region_order or [])}", f"a value for each of {', '.join(regions)}",
            "List the values that the regions paint, in the order of the regions, the largest region first",
        )  # fmt: skip
    names = {value: f"label_{value}" for value in known}
    for (name, values), value in zip(regions.items(), order):
        names[value] = name if values == [value] else f"{name} only"
    background = next((name for name, value in single.items() if value == 0), "background")
    exclusive = _checked({background: 0, **{name: value for value, name in names.items() if value}}, ignore, source)
    return LabelScheme(exclusive, regions, order, ignore)


def _checked(labels: dict[str, int], ignore: int | None, source: str | Path) -> dict[str, int]:
    ordered = dict(sorted(labels.items(), key=lambda item: item[1]))
    if len(set(ordered.values())) != len(ordered):
        raise VolumeError(source, f"two labels of one value in {ordered}", "a value of its own for each label")
    if 0 not in ordered.values() or len(ordered) < 2:
        raise VolumeError(source, f"labels {ordered}", "background = 0 and at least one more")
    highest = max([*ordered.values(), ignore or 0])
    if highest > _HIGHEST:
        raise VolumeError(source, f"label value {highest}", f"values up to {_HIGHEST}")
    if ignore is not None and ignore <= max(ordered.values()):
        raise VolumeError(source, f"label {IGNORE!r} = {ignore}", f"the highest value, above {max(ordered.values())}")
    return ordered


def _take_ignore(labels: dict[str, int], source: str | Path) -> int | None:
    """Take 'ignore' out of `labels` and return its value."""
    names = [name for name in labels if name.lower() == IGNORE]
    if len(names) > 1:
        raise VolumeError(source, f"the labels {', '.join(names)}", f"one label {IGNORE!r} at most")
    return labels.pop(names[0]) if names else None


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _value(name: str, value: object, source: str | Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise VolumeError(source, f"label {name!r} = {value!r}", "a whole number of 0 or more")
    return value
