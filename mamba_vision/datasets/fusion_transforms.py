"""From files to pairs of tensors for fusion: reading, cropping, made-up pairs of a photograph, packing.

Images are (H, W, C) float32 in [0, 1]: `first` and `second` of two sensors; or `ms`, few pixels of many bands, and
`pan`, its guide, with `gt`, the truth, and `lms`, interpolated, where there are some.
"""

from collections.abc import Sequence
from zlib import crc32

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mamba_vision.datasets.restoration_transforms import to_tensor
from mamba_vision.registry import TRANSFORMS
from mamba_vision.structures import FusionDataSample
from mamba_vision.utils.bicubic import bicubic_down
from mamba_vision.utils.picture_files import luminance, read_picture

# Below, transforms draw from NumPy's global generator, which MMEngine seeds in every loading process.


@TRANSFORMS.register_module()
class LoadFusionPair(BaseTransform):
    """Read `first_path` and `second_path`.

    Args:
        channels: 1 for luminance (colour images are converted), 3 for RGB.

    Raises:
        ValueError: a file that is no image, one channel where three are needed, or images of different sizes.
    """

    def __init__(self, channels: int = 1) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels: expected 1 or 3, found {channels!r}")
        self.channels = channels

    def transform(self, results: dict) -> dict:
        for key in ("first", "second"):
            path = results[f"{key}_path"]
            color = read_picture(path).color
            if self.channels == 3 and color.shape[2] == 1:
                raise ValueError(f"{path}: found one channel (gray), expected three; use channels=1 for gray images")
            results[key] = luminance(color) if self.channels == 1 else color
        check_one_size(results["first"], results["second"], f"{results['first_path']} and {results['second_path']}")
        return results


@TRANSFORMS.register_module()
class RandomFusionCrop(BaseTransform):
    """The same random square of both images.

    Args:
        size: its side.

    Raises:
        ValueError: the images are smaller.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        height, width = results["first"].shape[:2]
        if min(height, width) < self.size:
            name = results.get("first_path", "first")
            raise ValueError(f"{name}: found {height} x {width} pixels, expected at least {self.size} for the crop")
        top, left = (np.random.randint(length - self.size + 1) for length in (height, width))
        for key in ("first", "second"):
            results[key] = results[key][top : top + self.size, left : left + self.size]
        return results


@TRANSFORMS.register_module()
class MakeTwoViews(BaseTransform):
    """Two gray views of the photograph `gt`, each out of focus where the other is sharp. A stand-in for images by two
    sensors, with a known truth.

    Nothing is darkened, so that the brighter pixel is as often the worse one: where damage goes with darkness, the
    maximum of both views is nearly the truth, and shows nothing about a network.

    Args:
        blur: range of the Gaussian's width in pixels.
        grain: width in pixels of the noise whose sign divides the image.
        seed: the same draws for an image of one name, whenever it comes, for validation; None: new ones.
    """

    def __init__(self, blur: Sequence[float] = (1.5, 3.0), grain: float = 8.0, seed: int | None = None) -> None:
        self.blur, self.grain, self.seed = tuple(blur), grain, seed

    def transform(self, results: dict) -> dict:
        own = [np.random.randint(2**31)] if self.seed is None else [self.seed, crc32(results.get("name", "").encode())]
        rng = np.random.RandomState(own)
        truth = np.ascontiguousarray(luminance(results["gt"])[..., 0])
        noise = cv2.GaussianBlur(rng.normal(size=truth.shape).astype(np.float32), (0, 0), self.grain)
        share = 1 / (1 + np.exp(-10 * noise / noise.std()))  # a short slope, so that the border is not an edge
        results["gt"] = truth[..., None]
        for key, spoiled in (("first", share), ("second", 1 - share)):
            worse = cv2.GaussianBlur(truth, (0, 0), rng.uniform(*self.blur))
            view = (1 - spoiled) * truth + spoiled * worse
            results[key] = np.clip(view, 0, 1)[..., None].astype(np.float32)  # sums of ones may be a little more
        return results


@TRANSFORMS.register_module()
class MakeGuidedPair(BaseTransform):
    """From the image `gt`, what a sensor of many bands would see, `scale` times smaller, and its guide, the luminance.

    Wald's protocol (1997): the image before degradation is the truth.

    Raises:
        ValueError: the scale does not divide the image's sides.
    """

    def transform(self, results: dict) -> dict:
        gt = np.ascontiguousarray(results["gt"])
        results["ms"] = np.clip(bicubic_down(gt, results["scale"]), 0, 1)
        results["pan"] = luminance(gt) if gt.shape[2] == 3 else gt.mean(axis=2, keepdims=True)
        return results


@TRANSFORMS.register_module()
class PackSharpening(BaseTransform):
    """`inputs` with `ms` and `pan`, (C, H, W) each, and a `FusionDataSample` with all that is known."""

    def transform(self, results: dict) -> dict:
        inputs = {key: to_tensor(results[key]) for key in ("ms", "pan")}
        known = {f"{key}_image": to_tensor(results[key]) for key in ("ms", "pan", "lms", "gt") if key in results}
        return {"inputs": inputs, "data_samples": _sample(results, "path", known)}


@TRANSFORMS.register_module()
class PackFusionPair(BaseTransform):
    """`inputs` with `first` and `second`, (C, H, W) each, and a `FusionDataSample` with them and the truth, if any.

    Raises:
        ValueError: values outside [0, 1], or images of different sizes.
    """

    def transform(self, results: dict) -> dict:
        name = str(results.get("first_path", results.get("name", "first")))
        check_one_size(results["first"], results["second"], name)
        for key in ("first", "second"):
            low, high = results[key].min(), results[key].max()
            if low < 0 or high > 1:
                raise ValueError(f"{name}: {key} has values from {low:g} to {high:g}, expected 0 to 1")
        inputs = {key: to_tensor(results[key]) for key in ("first", "second")}
        known = {f"{key}_image": to_tensor(results[key]) for key in ("first", "second", "gt") if key in results}
        return {"inputs": inputs, "data_samples": _sample(results, "first_path", known)}


def check_one_size(first: np.ndarray, second: np.ndarray, name: str) -> None:
    """Raise ValueError where two images (H, W, C) differ in rows or columns."""
    if first.shape[:2] != second.shape[:2]:
        sizes = " and ".join(f"{image.shape[0]} x {image.shape[1]}" for image in (first, second))
        raise ValueError(f"{name}: found {sizes} pixels, expected images of one size, registered to each other")


def _sample(results: dict, path: str, known: dict[str, torch.Tensor]) -> FusionDataSample:
    sample = FusionDataSample(**known)
    meta = {"name": results.get("name", ""), "path": str(results.get(path, results.get("name", "")))}
    sample.set_metainfo({**meta, **{key: results[key] for key in ("scale", "dataset") if key in results}})
    return sample
