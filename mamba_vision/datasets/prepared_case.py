"""Reading what `mamba_vision.volumes.cache` wrote: one prepared case, of which only the voxels asked for are read.

CASE.image.npy         float32 (C, *S), normalized and resampled
CASE.label.npy         int16 (*S), class numbers
CASE.foreground.npz    '1', '2', ...: (n, 3), voxels of each class to centre patches on
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

    def foreground(self, number: int) -> np.ndarray:
        """(n, len(S)) voxels of class `number`."""
        with np.load(self.folder / "foreground.npz", allow_pickle=False) as places:
            return places[str(number)]

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
                classes = tuple(sorted(int(key) for key in places.files))
            record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
            spacing = tuple(float(step) for step in record["spacing"])
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise ValueError(f"{folder}: a file is damaged ({error}); delete the folder to prepare it again") from error
        if image.ndim != label.ndim + 1 or image.shape[1:] != label.shape:
            raise ValueError(f"{folder}: image {image.shape} and label {label.shape} contradict each other")
        return cls(folder, image.shape[0], tuple(label.shape), classes, spacing)

    def crop(self, corner: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The box from voxel `corner` on; beyond the volume the image is 0 and the label OUTSIDE.

        Returns image (C, *size) float32 and label (*size) int16, in memory.
        """
        low, high = np.maximum(corner, 0), np.minimum(corner + np.asarray(size), self.shape)
        inside = tuple(slice(int(a), int(max(a, b))) for a, b in zip(low, high))
        place = tuple(slice(int(a - c), int(max(a, b) - c)) for a, b, c in zip(low, high, corner))
        image = np.zeros((self.channels, *size), dtype=np.float32)
        label = np.full(size, OUTSIDE, dtype=np.int16)
        image[(slice(None), *place)] = self.image[(slice(None), *inside)]
        label[place] = self.label[inside]
        return image, label
