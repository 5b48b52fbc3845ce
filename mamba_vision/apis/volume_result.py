"""What a segmentation gives: the mask in the scan's own grid, its numbers, its files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.visualization.volumes import orthogonal_slices_figure
from mamba_vision.volumes.pictures import picture_ending, write_picture_labels
from mamba_vision.volumes.sitk_writing import SITK_ENDINGS, write_sitk_labels
from mamba_vision.volumes.statistics import label_statistics
from mamba_vision.volumes.volume import Volume
from mamba_vision.volumes.writing import write_image, write_labels


@dataclass
class VolumeResult:
    """The segmentation of one scan.

    Attributes:
        mask: (X, Y, Z) uint8 or uint16, in the grid of the scan as it is stored.
        affine: (4, 4), voxel index to RAS mm, of scan and mask.
        labels: names and values, background first; what was not asked for is left out.
        volume: the scan.
        case: its name.
        channels: names of its channels.
        info: how it was made: seconds, device, windows, options, where the logits were held.
        probabilities: (K, X, Y, Z) float32, if asked for; mapped from a nameless file where memory is short.
        window: intensities that a picture shows, (lowest, highest); None leaves it to the picture.
        uncertainty: (X, Y, Z) float32, 0 to 1, if asked for.
    """

    mask: np.ndarray
    affine: np.ndarray
    labels: dict[str, int]
    volume: Volume
    case: str
    channels: list[str]
    info: dict[str, Any] = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    window: tuple[float, float] | None = None
    uncertainty: np.ndarray | None = None

    def statistics(self) -> list[dict[str, Any]]:
        """A record a label: voxels, ml, centroid, box, intensities; see volumes.statistics.label_statistics."""
        return label_statistics(self.mask, self.affine, self.labels, self.volume.array, self.channels)

    def save(self, path: str | Path) -> Path:
        """Write the mask as .nii.gz, .nii, .nrrd or .mha in the scan's own grid, names inside; whole or not at all.

        Or as .png, .bmp or .tif, without names.
        """
        write = write_sitk_labels if Path(path).suffix in SITK_ENDINGS else write_labels
        write = write_picture_labels if picture_ending(path) else write
        return write(path, self.mask, self.volume, self.labels)

    def save_probabilities(self, path: str | Path) -> Path:
        """Write the probabilities as a NIfTI (X, Y, Z, K).

        Raises:
            ValueError: they were not asked for.
        """
        if self.probabilities is None:
            raise ValueError("probabilities: segment with probabilities=True to have them")
        return write_image(path, np.moveaxis(self.probabilities, 0, -1), self.volume)

    def save_uncertainty(self, path: str | Path) -> Path:
        """Write the uncertainty as a NIfTI in the scan's own grid.

        Raises:
            ValueError: it was not asked for.
        """
        if self.uncertainty is None:
            raise ValueError("uncertainty: segment with uncertainty=True to have it")
        return write_image(path, self.uncertainty, self.volume)

    def preview(self, path: str | Path) -> Path:
        """Write a PNG of three orthogonal slices (first channel) with the labels over them."""
        orthogonal_slices_figure(
            self.volume.array[0], self.mask, names=self.labels, affine=self.affine, path=path, title=self.case,
            window=self.window,
        )  # fmt: skip
        return Path(path)
