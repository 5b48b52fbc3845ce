"""What a label map says in numbers: volumes, places, intensities and pieces of each label, in millimetres and ml.

A label's box is gone through slab by slab, so the memory needed is that of a slab and not of the scan.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_SLAB = 2**21  # voxels looked at together
_NEIGHBOURS = np.ones((3, 3, 3), bool)  # a corner in common joins two voxels


def label_statistics(
    labels_XYZ: np.ndarray,
    affine: np.ndarray,
    names: Mapping[str, int],
    image_CXYZ: np.ndarray | None = None,
    channels: list[str] | None = None,
) -> list[dict[str, Any]]:
    """One record for each named label but background (0), present or not.

    Args:
        labels_XYZ: integers, (X, Y, Z).
        affine: (4, 4), voxel index to RAS mm.
        names: label names and values.
        image_CXYZ: the scan, for intensities.
        channels: its channels' names; needed when there are several.

    Returns:
        Records with `name`, `label`, `voxels`, `ml`, `components` (pieces that share not even a corner),
        `touches_border` (a voxel lies on a face of the scan: the structure may go on outside),
        `centroid_mm` [x, y, z] and `box_mm` [[x, y, z] lowest, highest] in RAS coordinates, voxels' full extent
        included, and `intensity` {channel: {mean, sd, min, max}} (sd of the population). An absent label has 0 voxels
        and None for all that has no meaning then.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if labels_XYZ.ndim != 3 or labels_XYZ.dtype.kind not in "iu":
        raise ValueError(f"labels_XYZ: expected 3-D integers, found {labels_XYZ.dtype} of shape {labels_XYZ.shape}")
    if image_CXYZ is not None and image_CXYZ.shape[1:] != labels_XYZ.shape:
        raise ValueError(f"image_CXYZ: expected (C, {labels_XYZ.shape}), found {image_CXYZ.shape}")
    count = 0 if image_CXYZ is None else len(image_CXYZ)
    channels = channels or [f"channel {index}" for index in range(count)]
    if image_CXYZ is not None and len(channels) != count:
        raise ValueError(f"channels: expected {count} names, found {channels}")
    affine = np.asarray(affine, np.float64)
    boxes = ndimage.find_objects(labels_XYZ)
    records = []
    for name, label in sorted(names.items(), key=lambda item: item[1]):
        if label > 0:
            box = boxes[label - 1] if label <= len(boxes) else None
            record = {"name": name, "label": int(label)}
            records.append(
                record | (_measure(labels_XYZ, label, box, affine, image_CXYZ, channels) if box else _ABSENT)
            )
    return records


_ABSENT = {
    "voxels": 0, "ml": 0.0, "components": 0, "touches_border": False, "centroid_mm": None, "box_mm": None,
    "intensity": None,
}  # fmt: skip


def flat_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one row of a table: vectors by axis, intensities by channel (unnamed if there is one)."""
    centroid, box = record["centroid_mm"], record["box_mm"]
    row = {key: record[key] for key in ("name", "label", "voxels", "ml", "components", "touches_border")}
    row |= {f"centroid_{axis}_mm": centroid and centroid[i] for i, axis in enumerate("xyz")}
    for j, end in enumerate(("min", "max")):
        row |= {f"box_{end}_{axis}_mm": box and box[j][i] for i, axis in enumerate("xyz")}
    intensity = record["intensity"] or {}
    for channel, values in intensity.items():
        row |= {f"{key} {channel}" if len(intensity) > 1 else key: value for key, value in values.items()}
    return row


def _measure(labels, label: int, box: tuple[slice, ...], affine, image, channels: list[str]) -> dict[str, Any]:
    voxels, total = 0, np.zeros(3)
    moments = [_Moments() for _ in channels] if image is not None else []
    for slab in _slabs(box):
        mask = labels[slab] == label
        places = np.nonzero(mask)
        voxels += len(places[0])
        total += [float(axis.sum()) + len(axis) * part.start for axis, part in zip(places, slab)]
        for channel, moment in enumerate(moments):
            moment.add(image[(channel, *slab)][places])
    corners = np.array([[part.start - 0.5, part.stop - 0.5] for part in box])
    corners = np.stack(np.meshgrid(*corners, indexing="ij"), -1).reshape(-1, 3)
    corners = corners @ affine[:3, :3].T + affine[:3, 3]
    centroid = affine[:3, :3] @ (total / voxels) + affine[:3, 3]
    return {
        "voxels": voxels,
        "ml": round(voxels * abs(float(np.linalg.det(affine[:3, :3]))) / 1000, 6),
        "components": _count_components(labels, label, box),
        "touches_border": any(part.start == 0 or part.stop == side for part, side in zip(box, labels.shape)),
        "centroid_mm": centroid.tolist(),
        "box_mm": [corners.min(0).tolist(), corners.max(0).tolist()],
        "intensity": {name: moment.result() for name, moment in zip(channels, moments)} or None,
    }


def _slabs(box: tuple[slice, ...], shared: int = 0) -> Iterator[tuple[slice, ...]]:
    """The box cut along its first axis; each slab repeats the last `shared` planes of the one before."""
    plane = max(1, (box[1].stop - box[1].start) * (box[2].stop - box[2].start))
    thickness = max(1 + shared, _SLAB // plane)
    start = box[0].start
    while True:
        stop = min(start + thickness, box[0].stop)
        yield slice(start, stop), *box[1:]
        if stop == box[0].stop:
            return
        start = stop - shared


def _count_components(labels: np.ndarray, label: int, box: tuple[slice, ...]) -> int:
    """Pieces within slabs, joined where two of them name the same voxel of the plane that both slabs hold."""
    pairs, last, found = [], None, 0
    for slab in _slabs(box, shared=1):
        pieces, count = ndimage.label(labels[slab] == label, structure=_NEIGHBOURS)
        if last is not None:
            both = last > 0
            pairs.append(np.unique(np.stack([last[both], _number(pieces[0], found)[both]]), axis=1))
        last = _number(pieces[-1], found)
        found += count
    if not pairs:
        return found
    one, two = np.concatenate(pairs, axis=1) - 1
    graph = coo_array((np.ones(len(one), bool), (one, two)), shape=(found, found))
    return int(connected_components(graph, directed=False, return_labels=False))


def _number(pieces: np.ndarray, before: int) -> np.ndarray:
    """A slab's pieces 1, 2, ... numbered on from those of the slabs before; 0 stays 0."""
    return np.where(pieces > 0, pieces.astype(np.int64) + before, 0)


class _Moments:
    """Mean, spread and range of values that come in parts (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares, self.low, self.high = 0, 0.0, 0.0, np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        if not values.size:
            return
        values = values.astype(np.float64)
        count, mean = self.count + values.size, float(values.mean())
        gap = mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + gap**2 * self.count * values.size / count
        self.mean += gap * values.size / count
        self.count = count
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def result(self) -> dict[str, float]:
        return {"mean": self.mean, "sd": (self.squares / self.count) ** 0.5, "min": self.low, "max": self.high}
