"""Keeping the largest connected piece of structures: the clean-up that nnU-Net chooses by validation.

A step names labels; of all voxels that carry one of them, those of the largest connected piece stay and the others
become background. Voxels that share a corner are connected (26 neighbours), as in nnU-Net.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from mamba_vision.volumes.volume import VolumeError

POSTPROCESSING_FILE = "postprocessing.json"
_NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class KeepLargest:
    """One step: of the voxels with one of `labels` the largest piece stays; `name` says what they are together.

    Raises:
        ValueError: no labels, or background among them.
    """

    name: str
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(int(label) for label in self.labels))
        if not self.labels or min(self.labels) < 1:
            raise ValueError(f"labels: expected values above background (0), found {self.labels}")


def keep_largest(mask_XYZ: np.ndarray, labels: Sequence[int]) -> int:
    """Set all but the largest piece of the voxels with one of `labels` to 0, in place.

    Works inside the labels' bounding box; takes 5 bytes a voxel of it. Of pieces of one size the first stays.

    Returns:
        How many voxels were removed.
    """
    box = _box(mask_XYZ, labels)
    if box is None:
        return 0
    inside = mask_XYZ[box]
    marked = np.empty(inside.shape, bool)
    for plane, values in zip(marked, inside):  # isin of the whole would take 8 bytes a voxel
        plane[:] = np.isin(values, list(labels))
    pieces, count = ndimage.label(marked, structure=_NEIGHBOURS)
    if count < 2:
        return 0
    sizes = np.zeros(count + 1, np.int64)
    for plane in pieces:  # one bincount of all would copy the volume to 64 bits
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = int(sizes.argmax())
    for plane, kept, values in zip(marked, pieces, inside):
        values[plane & (kept != largest)] = 0
    return int(sizes.sum() - sizes[largest])


def apply_steps(mask_XYZ: np.ndarray, steps: Sequence[KeepLargest]) -> np.ndarray:
    """The steps one after the other, in place; returns the mask."""
    for step in steps:
        keep_largest(mask_XYZ, step.labels)
    return mask_XYZ


def load_steps(path: str | Path, labels: Mapping[str, int]) -> tuple[KeepLargest, ...]:
    """The steps in a postprocessing.json.

    Args:
        path: the file.
        labels: of the model; the file's must be among them.

    Raises:
        VolumeError: no such file, not in this form, or made for other labels.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))["steps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(path, error) from error
    return steps_from_json(content, labels, path)


def steps_from_json(
    content: object, labels: Mapping[str, int], source: str | Path = "postprocessing"
) -> tuple[KeepLargest, ...]:
    """The inverse of steps_as_json; raises as load_steps, errors name the `source`."""
    try:
        steps = tuple(KeepLargest(str(step["name"]), tuple(step["labels"])) for step in content)
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(source, error) from error
    unknown = sorted({label for step in steps for label in step.labels} - set(labels.values()))
    if unknown:
        raise VolumeError(source, f"labels {unknown}", f"those of the model: {dict(labels)}")
    return steps


def _unusable(source: str | Path, error: Exception) -> VolumeError:
    found = f"no usable steps ({type(error).__name__}: {error})"
    expected = '{"steps": [{"name": ..., "labels": [values]}, ...]}'
    return VolumeError(source, found, expected, "tools/find_postprocessing.py writes it")


def steps_as_json(steps: Sequence[KeepLargest]) -> list[dict]:
    """As postprocessing.json and run.json hold them."""
    return [{**asdict(step), "labels": list(step.labels)} for step in steps]


def _box(mask: np.ndarray, labels: Sequence[int]) -> tuple[slice, ...] | None:
    """The bounding box of the labels; looked for plane by plane."""
    shape = mask.shape
    seen = [np.zeros(side, bool) for side in shape]
    for x, plane in enumerate(mask):
        marked = np.isin(plane, list(labels))
        if marked.any():
            seen[0][x] = True
            seen[1] |= marked.any(axis=1)
            seen[2] |= marked.any(axis=0)
    if not seen[0].any():
        return None
    ends = [np.flatnonzero(axis) for axis in seen]
    return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in ends)
