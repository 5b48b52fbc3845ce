"""The surface of a label as triangles in millimetres, and the files that hold them (PLY, STL)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage, sparse

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.volumes.volume import VolumeError

SURFACE_ENDINGS = (".ply", ".stl")
_ROUNDS, _SHRINK, _GROW = 10, 0.5, -0.53  # Taubin's smoothing: shrinking and growing steps in turn


@dataclass(frozen=True)
class Surface:
    """Triangles around one label.

    Attributes:
        points: (N, 3) float32, RAS mm.
        triangles: (M, 3) int32, indices into `points`, counter-clockwise seen from outside.
    """

    points: np.ndarray
    triangles: np.ndarray

    @property
    def volume_ml(self) -> float:
        """What the surface encloses, by the divergence theorem."""
        corners = self.points[self.triangles].astype(np.float64)
        return float(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()) / 6000


def label_surface(
    labels_XYZ: np.ndarray, label: int, affine: np.ndarray, smooth: bool = True, step: int = 1
) -> Surface | None:
    """The surface of the voxels with `label` (marching cubes), or None if there are none.

    Args:
        labels_XYZ: integers, (X, Y, Z).
        label: which.
        affine: (4, 4), voxel index to RAS mm.
        smooth: take away the stairs of the voxels (Taubin, 1995), which keeps the volume.
        step: every how many voxels; more gives fewer triangles.

    Raises:
        VolumeError: scikit-image missing.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise VolumeError(
            "surface", "no scikit-image to make it with", "scikit-image", 'pip install "mamba_vision[medical]"'
        ) from error
    boxes = ndimage.find_objects(labels_XYZ, max_label=label)
    box = boxes[label - 1] if len(boxes) >= label else None
    if box is None:
        return None
    inside = np.pad((labels_XYZ[box] == label).astype(np.float32), step)
    points, triangles, _, _ = marching_cubes(inside, 0.5, step_size=step, allow_degenerate=False)
    triangles = triangles.astype(np.int32)
    points = points - step + [side.start for side in box]
    points = points @ affine[:3, :3].T + affine[:3, 3]
    if smooth:
        points = _smoothed(points, triangles)
    found = Surface(points.astype(np.float32), triangles)
    return found if found.volume_ml >= 0 else Surface(found.points, np.ascontiguousarray(triangles[:, ::-1]))


def write_surface(path: str | Path, surface: Surface, colour: tuple[float, float, float] = (0.8, 0.3, 0.3)) -> Path:
    """Write as binary .ply (with a colour) or .stl, atomically. Coordinates are RAS mm, as the header says.

    Raises:
        VolumeError: another ending.
    """
    kind = Path(path).suffix
    if kind not in SURFACE_ENDINGS:
        raise VolumeError(path, "a name without a known ending", " or ".join(SURFACE_ENDINGS))
    content = _ply(surface, colour) if kind == ".ply" else _stl(surface)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def _smoothed(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    count = len(points)
    one, two = np.concatenate([triangles[:, pair] for pair in ((0, 1), (1, 2), (2, 0))]).T
    links = sparse.coo_array((np.ones(2 * len(one)), (np.r_[one, two], np.r_[two, one])), shape=(count, count)).tocsr()
    links.data[:] = 1  # an edge belongs to two triangles
    neighbours = links.sum(axis=1).clip(1)[:, None]
    for _ in range(_ROUNDS):
        for factor in (_SHRINK, _GROW):
            points = points + factor * (links @ points / neighbours - points)
    return points


def _ply(surface: Surface, colour: tuple[float, float, float]) -> bytes:
    vertices = np.zeros(len(surface.points), [("place", "<f4", 3), ("colour", "u1", 3)])
    vertices["place"], vertices["colour"] = surface.points, np.round(255 * np.array(colour))
    faces = np.zeros(len(surface.triangles), [("corners", "u1"), ("index", "<i4", 3)])
    faces["corners"], faces["index"] = 3, surface.triangles
    header = [
        "ply", "format binary_little_endian 1.0", "comment SPACE=RAS millimetres", f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"), *(f"property uchar {part}" for part in ("red", "green", "blue")),
        f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", "",
    ]  # fmt: skip
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _stl(surface: Surface) -> bytes:
    corners = surface.points[surface.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    faces = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    faces["normal"], faces["corners"] = normals / np.where(length > 0, length, 1), corners
    return b"SPACE=RAS millimetres".ljust(80) + np.uint32(len(faces)).tobytes() + faces.tobytes()
