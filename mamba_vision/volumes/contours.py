"""Closed contours as voxels: a voxel belongs to a structure where its centre lies inside."""

from collections.abc import Sequence

import numpy as np

_FLAT = 0.1  # voxels by which the points of one contour may leave its slice


def fill_polygons(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The points (a, b) of a grid that lie inside the polygons, (A, B) bool.

    Inside is where a ray crosses the outlines an odd number of times, so that a contour in another one is a hole, and
    holes joined to the outline by a channel without width come out right too. Of a point on an outline one of two
    neighbours gets it, never both.

    Args:
        polygons: (points, 2) each, in units of the grid, closed by themselves.
    """
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int32)
    for polygon in polygons:
        start, stop = polygon, np.roll(polygon, -1, axis=0)
        low, high = np.minimum(start[:, 0], stop[:, 0]), np.maximum(start[:, 0], stop[:, 0])
        first, last = np.ceil(low).clip(0, shape[0]).astype(int), np.ceil(high).clip(0, shape[0]).astype(int)
        counts = last - first  # lines of the grid that each edge crosses, its lower end counted, its upper not
        edge = np.repeat(np.arange(len(start)), counts)
        line = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        run = stop[edge] - start[edge]
        place = start[edge, 1] + (line - start[edge, 0]) * run[:, 1] / run[:, 0]
        np.add.at(crossings, (line, np.ceil(place).clip(0, shape[1]).astype(int)), 1)
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


def fill_contours(contours: Sequence[np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    """Contours on parallel slices as a mask of the grid.

    A slice takes the contours of the plane nearest to it, up to half the distance from plane to plane: contours drawn
    on every second slice fill those between, and a structure of two parts stays two.

    Args:
        contours: (points, 3) each, in voxel indices of the grid; all in planes across one of its axes.
        shape: (X, Y, Z).

    Raises:
        ValueError: contours that are not drawn in slices of the grid.
    """
    mask = np.zeros(shape, dtype=bool)
    if not contours:
        return mask
    leaving = np.max([np.ptp(points, axis=0) for points in contours], axis=0)
    axis = int(np.argmin(leaving))
    if leaving[axis] > _FLAT:
        raise ValueError(f"contours that leave their slice by {leaving[axis]:.2g} voxels")
    across = [other for other in range(3) if other != axis]
    heights = np.array([points[:, axis].mean() for points in contours])
    order = np.argsort(heights, kind="stable")
    starts = np.flatnonzero(np.diff(heights[order], prepend=-np.inf) > _FLAT)
    planes = [order[group] for group in np.split(np.arange(len(order)), starts[1:])]
    places = np.array([heights[plane].mean() for plane in planes])
    reach = max(float(np.median(np.diff(places))) if len(places) > 1 else 1.0, 1.0) / 2 + 1e-3
    swept = np.moveaxis(mask, axis, 0)
    for place in range(shape[axis]):
        nearest = int(np.abs(places - place).argmin())
        if abs(places[nearest] - place) <= reach:
            polygons = [contours[number][:, across] for number in planes[nearest]]
            swept[place] = fill_polygons(polygons, swept.shape[1:])
    return mask
