"""Reading what `mamba_vision.volumes.cache` wrote: one prepared case, of which only the voxels asked for are read.

CASE.image.npy         float32 (C, *S), normalized and resampled
CASE.label.npy         int16 (*S), class numbers; -1 where there is nothing in the image
CASE.foreground.npz    '1', '2', ...: (n, 3), voxels of each class to centre patches on; 'region_1', ...: of each
                       region, where there are some; 'annotated': of all that is not ignored, where some is
CASE.json              `geometry`, from which the voxel size follows
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILES = ("image.npy", "label.npy", "foreground.npz", "case.json")
OUTSIDE = -1  # label of voxels beyond the volume


@dataclass(frozen=True)
class PreparedCase:
    """One case on disk. Nothing is kept open or in memory, so a data set may have any number of them."""

    folder: Path
    channels: int
    shape: tuple[int, ...]  # S
    classes: tuple[int, ...]  # above 0, that occur
    spacing: tuple[float, ...]  # mm along S
    targets: tuple[str, ...] = ()  # regions that occur, or classes where there are none: what patches are centred on
    partly_annotated: bool = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def image(self) -> np.ndarray:
        """(C, *S), memory-mapped."""
        return np.load(self.folder / "image.npy", mmap_mode="r", allow_pickle=False)

    @property
    def label(self) -> np.ndarray:
        """(*S), memory-mapped."""
        return np.load(self.folder / "label.npy", mmap_mode="r", allow_pickle=False)

    def foreground(self, target: int | str) -> np.ndarray:
        """(n, len(S)) voxels of a class, of a region ('region_1') or of what is annotated ('annotated')."""
        with np.load(self.folder / "foreground.npz", allow_pickle=False) as places:
            return places[str(target)]

    @classmethod
    def open(cls, root: str | Path, name: str) -> "PreparedCase":
        """The case `name` in the folder `root`.

        Raises:
            ValueError: a file is missing or damaged, or image and label contradict each other.
        """
        folder = Path(root) / name
        missing = [file for file in FILES if not (folder / file).is_file()]
        if missing:
            raise ValueError(f"{folder}: expected {', '.join(FILES)}, missing {', '.join(missing)}")
        try:
            image = np.load(folder / "image.npy", mmap_mode="r", allow_pickle=False)
            label = np.load(folder / "label.npy", mmap_mode="r", allow_pickle=False)
            with np.load(folder / "foreground.npz", allow_pickle=False) as places:
                classes = tuple(sorted(int(key) for key in places.files if key.isdigit()))
                regions = tuple(sorted(key for key in places.files if key.startswith("region_")))
                partly = "annotated" in places.files
            record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
            spacing = tuple(float(step) for step in record["spacing"])
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise ValueError(f"{folder}: a file is damaged ({error}); delete the folder to prepare it again") from error
        if image.ndim != label.ndim + 1 or image.shape[1:] != label.shape:
            raise ValueError(f"{folder}: image {image.shape} and label {label.shape} contradict each other")
        targets = regions or tuple(map(str, classes))
        return cls(folder, image.shape[0], tuple(label.shape), classes, spacing, targets, partly)

    def crop(self, corner: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The box from voxel `corner` on; beyond the volume the image is 0 and the label OUTSIDE.

        Returns image (C, *size) float32 and label (*size) int16, in memory.
        """
        image = crop_box(self.image, corner, size, 0)
        return image.astype(np.float32, copy=False), crop_box(self.label[None], corner, size, OUTSIDE)[0]


def crop_box(array: np.ndarray, corner: np.ndarray, size: tuple[int, ...], beyond: float) -> np.ndarray:
    """The box from voxel `corner` on of (C, *S), (C, *size) in memory; `beyond` it where it leaves S."""
    shape = array.shape[1:]
    low, high = np.maximum(corner, 0), np.minimum(corner + np.asarray(size), shape)
    inside = tuple(slice(int(a), int(max(a, b))) for a, b in zip(low, high))
    place = tuple(slice(int(a - c), int(max(a, b) - c)) for a, b, c in zip(low, high, corner))
    box = np.full((len(array), *size), beyond, dtype=array.dtype)
    box[(slice(None), *place)] = array[(slice(None), *inside)]
    return box
