"""What a data set looks like, in numbers: the evidence every choice of the plan rests on.

After nnU-Net (Isensee et al., Nature Methods 18, 2021): shapes and spacings, the share left after cropping to non-zero
voxels, and intensities of foreground voxels. Axes are the canonical ones: x to the right, y to the front, z up.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from mamba_vision.utils.atomic import write_json
from mamba_vision.volumes.volume import Volume, VolumeError

SAMPLES = 10_000_000  # foreground intensities pooled over all cases; every case gives the same number ...
SAMPLES_A_CASE = 1_000_000  # ... and not more than this


@dataclass(frozen=True)
class CaseFingerprint:
    """One case. Shapes (voxels) and spacing (mm) along canonical x, y, z."""

    case: str
    shape: tuple[int, int, int]
    cropped_shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    relative_size: float  # voxels left after the crop, a share of all
    label_ml: dict[int, float]  # volume of every label above 0 that occurs, in ml


@dataclass(frozen=True)
class Intensities:
    """One channel's foreground voxels over the whole data set."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class Fingerprint:
    """The data set: its cases, and for every channel the foreground intensities."""

    cases: list[CaseFingerprint]
    intensities: list[Intensities]

    @property
    def relative_size(self) -> float:
        """Median over the cases of what the crop leaves."""
        return float(np.median([case.relative_size for case in self.cases]))

    @property
    def label_values(self) -> list[int]:
        """Labels above 0 that occur anywhere, ascending."""
        return sorted({value for case in self.cases for value in case.label_ml})

    def save(self, path: str | Path) -> Path:
        """Write as JSON."""
        return write_json(path, {**asdict(self), "median_relative_size": self.relative_size})

    @classmethod
    def load(cls, path: str | Path) -> "Fingerprint":
        """Read what save() wrote.

        Raises:
            FileNotFoundError: no such file.
            VolumeError: it holds no fingerprint.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            cases = [
                CaseFingerprint(
                    **{
                        **case,
                        **{key: tuple(case[key]) for key in ("shape", "cropped_shape", "spacing")},
                        "label_ml": {int(label): ml for label, ml in case["label_ml"].items()},
                    }
                )
                for case in content["cases"]
            ]
            return cls(cases, [Intensities(**channel) for channel in content["intensities"]])
        except (ValueError, KeyError, TypeError) as e:
            raise VolumeError(path, f"no usable fingerprint ({type(e).__name__}: {e})", "a fingerprint.json") from e


def nonzero_box(array: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box of (C, *S) outside which every channel is 0; all of S if everything is 0.

    Filling holes in the mask, as nnU-Net does, does not change its box.
    """
    box = []
    for axis in range(1, 4):
        others = tuple(other for other in range(4) if other != axis)
        used = np.flatnonzero(np.any(array, axis=others))
        if used.size == 0:
            return tuple(slice(0, side) for side in array.shape[1:])
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def case_fingerprint(
    case: str, volume: Volume, label: Volume, samples: int, seed: int = 1234
) -> tuple[CaseFingerprint, np.ndarray]:
    """Fingerprint of one case, and `samples` foreground intensities drawn with replacement, (C, samples) float32.

    Without foreground the second is (C, 0).
    """
    order = nib.io_orientation(volume.affine)[:, 0].argsort()  # stored axis of canonical x, y, z
    box = nonzero_box(volume.array)
    cropped = tuple(side.stop - side.start for side in box)
    ml = float(np.prod(volume.spacing)) / 1000
    values, counts = np.unique(label.array[label.array > 0], return_counts=True)
    fingerprint = CaseFingerprint(
        case,
        tuple(int(volume.shape[axis]) for axis in order),
        tuple(int(cropped[axis]) for axis in order),
        tuple(round(float(volume.spacing[axis]), 6) for axis in order),
        float(np.prod(cropped) / np.prod(volume.shape)),
        {int(value): float(count * ml) for value, count in zip(values, counts)},
    )
    foreground = np.flatnonzero(label.array[0] > 0)
    if foreground.size:
        foreground = np.random.RandomState(seed).choice(foreground, samples, replace=True)
    where = np.unravel_index(foreground, volume.shape)
    return fingerprint, np.stack([channel[where] for channel in volume.array]).astype(np.float32)


def pool_intensities(samples: Sequence[np.ndarray]) -> list[Intensities]:
    """Statistics a channel over the cases' samples, each (C, n).

    Raises:
        ValueError: no case has foreground.
    """
    pooled = np.concatenate(samples, axis=1)
    if pooled.shape[1] == 0:
        raise ValueError("samples: expected foreground in at least one case, found none: every label is empty")
    result = []
    for channel in pooled:
        low, median, high = np.percentile(channel, (0.5, 50, 99.5))
        mean, std = channel.mean(dtype=np.float64), channel.std(dtype=np.float64)
        numbers = (mean, median, std, channel.min(), channel.max(), low, high)
        result.append(Intensities(*(float(number) for number in numbers)))
    return result
