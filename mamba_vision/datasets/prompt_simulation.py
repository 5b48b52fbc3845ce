"""Boxes and points that a user might have given for a mask.

Masks are (H, W) bool. Boxes are (K, 4) float32, pixels x1, y1, x2, y2, half-open; points (N, 2) float32, pixels x, y.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

_AROUND = np.ones((3, 3), bool)  # 8 neighbours


@dataclass
class Prompts:
    """Boxes, points and the points' labels (1 foreground, 0 background) of one image."""

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def scaled(self, across: float, down: float) -> "Prompts":
        """For the image resized by these factors; points stay in the middle of what their pixel became."""
        boxes = self.boxes * np.float32([across, down, across, down])
        return Prompts(boxes, (self.points + 0.5) * np.float32([across, down]) - np.float32(0.5), self.labels)


def pieces(mask: np.ndarray, least: int = 20, limit: int = 8) -> list[np.ndarray]:
    """Connected pieces of at least so many pixels, largest first, at most `limit`; the largest always."""
    numbered, count = ndimage.label(mask, structure=_AROUND)
    if not count:
        return []
    sizes = np.bincount(numbered.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")[:limit]
    return [numbered == number + 1 for rank, number in enumerate(order) if rank == 0 or sizes[number] >= least]


def box_of(mask: np.ndarray) -> np.ndarray:
    """The smallest box around a mask that is not empty, (4,)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.float32([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def boxes_of(mask: np.ndarray, least: int = 20, limit: int = 8) -> np.ndarray:
    """A box a connected piece (see `pieces`), (K, 4)."""
    found = [box_of(piece) for piece in pieces(mask, least, limit)]
    return np.stack(found) if found else np.zeros((0, 4), np.float32)


def jittered(
    boxes: np.ndarray, size: tuple[int, int], random: np.random.Generator, share: float = 0.1, most: float = 20.0
) -> np.ndarray:
    """Every side moved at random by up to `share` of the box's length, at most `most` pixels, within the image.

    Args:
        size: (rows, columns) of the image.
    """
    lengths = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    shift = np.clip(random.uniform(-share, share, boxes.shape) * lengths, -most, most)
    limits = np.float32([size[1], size[0], size[1], size[0]])
    return np.clip(boxes + shift, 0, limits).astype(np.float32)


def random_box(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """A box (4,) anywhere, of an eighth to a half of the image's sides."""
    lengths = random.uniform(1 / 8, 1 / 2, 2) * size[::-1]
    corner = random.uniform(0, 1, 2) * (np.asarray(size[::-1]) - lengths)
    return np.concatenate([corner, corner + lengths]).astype(np.float32)


def inner_point(mask: np.ndarray) -> np.ndarray:
    """The centroid's pixel of a mask that is not empty, or, if that lies outside, the one farthest from the border."""
    row, column = (round(float(where.mean())) for where in np.nonzero(mask))
    if not mask[row, column]:
        distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(distance.argmax(), mask.shape)
    return np.float32([column, row])


def simulate_boxes(mask: np.ndarray, random: np.random.Generator, flawed: float = 0.1) -> Prompts:
    """A shifted box a piece; with probability `flawed` one of several is missing, or one is anywhere."""
    boxes = jittered(boxes_of(mask), mask.shape, random)
    if len(boxes) and random.random() < flawed:
        if len(boxes) > 1 and random.random() < 0.5:
            boxes = np.delete(boxes, random.integers(len(boxes)), axis=0)
        else:
            boxes = np.concatenate([boxes, random_box(mask.shape, random)[None]])
    return Prompts(boxes=boxes)


def simulate_points(mask: np.ndarray, random: np.random.Generator, most: int = 3) -> Prompts:
    """One to `most` points, the first inside, each other one inside or outside: half of those beside the mask.

    A point far outside says nothing that the picture does not; those that correct a mask lie near it.
    """
    count = int(random.integers(1, most + 1))
    inside = np.array([True, *(random.random(count - 1) < 0.5)])
    if mask.all():
        inside[:] = True
    close = None if inside.all() else beside(mask)
    points = [_any_pixel(mask if one else close if random.random() < 0.5 else ~mask, random) for one in inside]
    return Prompts(points=np.stack(points), labels=inside.astype(np.int64))


def beside(mask: np.ndarray) -> np.ndarray:
    """Pixels around a mask that is neither empty nor full, as far out as half the side of a square of its area."""
    reach = max(np.sqrt(mask.sum()) / 2, 1)
    return ~mask & (ndimage.distance_transform_edt(~mask) <= reach)


def exact_points(mask: np.ndarray) -> Prompts:
    """An inner point a piece."""
    points = [inner_point(piece) for piece in pieces(mask)]
    if not points:
        return Prompts()
    return Prompts(points=np.stack(points), labels=np.ones(len(points), np.int64))


def _any_pixel(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    places = np.flatnonzero(mask)
    row, column = divmod(int(places[random.integers(len(places))]), mask.shape[1])
    return np.float32([column, row])
