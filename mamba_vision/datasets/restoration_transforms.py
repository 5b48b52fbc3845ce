"""From files to pairs of tensors: reading, cropping, turning, degrading, packing.

A pair is `gt` (truth) and `lq` (degraded), (H, W, C) float32 in [0, 1]; `lq` may be missing until it is made from `gt`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mamba_vision.datasets import restoration_degradations as degradations
from mamba_vision.registry import TRANSFORMS
from mamba_vision.structures import RestorationDataSample
from mamba_vision.utils.bicubic import bicubic_down
from mamba_vision.utils.picture_files import luminance, read_picture

# Below, transforms draw from NumPy's global generator, which MMEngine seeds in every loading process.


@TRANSFORMS.register_module()
class LoadImagePair(BaseTransform):
    """Read `gt_path`, and `lq_path` where there is one.

    The truth is cut to scale times the degraded image, as published; it may be larger by less than `scale` pixels.

    Args:
        scale: sides of the truth over those of the degraded image; default: what the data set says, else 1.
        channels: 3 for RGB, 1 for gray (color files are converted).

    Raises:
        ValueError: a file that is no image, a gray image where color is needed, or sizes that do not go together.
    """

    def __init__(self, scale: int | None = None, channels: int = 3) -> None:
        if (scale is not None and scale < 1) or channels not in (1, 3):
            raise ValueError(f"expected scale >= 1 and channels 1 or 3, found {scale} and {channels}")
        self.scale, self.channels = scale, channels

    def transform(self, results: dict) -> dict:
        scale = results["scale"] = results.get("scale", 1) if self.scale is None else self.scale
        if "gt" not in results:
            results["gt"] = self._read(results["gt_path"])
        if "lq_path" in results:
            results["lq"] = self._read(results["lq_path"])
        if "lq" in results:
            results["gt"] = cut_to_pair(results["gt"], results["lq"], scale, results.get("gt_path", "gt"))
        return results

    def _read(self, path: str) -> np.ndarray:
        color = read_picture(path).color
        if self.channels == 1:
            return luminance(color)
        if color.shape[2] == 1:
            raise ValueError(f"{path}: found one channel (gray), expected three; use channels=1 for gray images")
        return color


def cut_to_pair(gt: np.ndarray, lq: np.ndarray, scale: int, name: str) -> np.ndarray:
    """The truth cut to scale times the degraded image.

    Raises:
        ValueError: the sizes do not go together.
    """
    want = tuple(scale * side for side in lq.shape[:2])
    over = [have - side for have, side in zip(gt.shape[:2], want)]
    if not all(0 <= pixels < scale for pixels in over):
        raise ValueError(
            f"{name}: found {gt.shape[0]} x {gt.shape[1]} pixels, expected {want[0]} x {want[1]}, {scale} times the "
            f"degraded image's {lq.shape[0]} x {lq.shape[1]}"
        )
    return gt[: want[0], : want[1]]


@TRANSFORMS.register_module()
class RandomPairCrop(BaseTransform):
    """The same random square of both images.

    Args:
        gt_size: its side in the truth, a multiple of the scale.

    Raises:
        ValueError: the image is smaller, or the side no multiple of the scale.
    """

    def __init__(self, gt_size: int) -> None:
        self.gt_size = gt_size

    def transform(self, results: dict) -> dict:
        gt, scale, side = results["gt"], results["scale"], self.gt_size
        if side % scale:
            raise ValueError(f"gt_size: expected a multiple of the scale {scale}, found {side}")
        if min(gt.shape[:2]) < side:
            raise ValueError(
                f"{results.get('gt_path', 'gt')}: found {gt.shape[:2]} pixels, expected at least {side} for the crop"
            )
        top, left = (np.random.randint((length - side) // scale + 1) for length in gt.shape[:2])
        results["gt"] = gt[top * scale :, left * scale :][:side, :side]
        if "lq" in results:
            results["lq"] = results["lq"][top:, left:][: side // scale, : side // scale]
        return results


@TRANSFORMS.register_module()
class CropToMultiple(BaseTransform):
    """Cut the truth's far ends to multiples of the scale, before a degraded image is made from it."""

    def transform(self, results: dict) -> dict:
        scale = results["scale"]
        height, width = (side // scale * scale for side in results["gt"].shape[:2])
        results["gt"] = results["gt"][:height, :width]
        return results


@TRANSFORMS.register_module()
class RandomFlipTurn(BaseTransform):
    """Flip left and right, flip up and down, transpose: each with probability one half, all images alike.

    Args:
        keys: names of the images; those that are missing are left out.
    """

    def __init__(self, keys: Sequence[str] = ("gt", "lq")) -> None:
        self.keys = tuple(keys)

    def transform(self, results: dict) -> dict:
        flip, turn, swap = np.random.rand(3) < 0.5
        for key in self.keys:
            if key in results:
                image = results[key][:, ::-1] if flip else results[key]
                image = image[::-1] if turn else image
                results[key] = image.transpose(1, 0, 2) if swap else image
        return results


@TRANSFORMS.register_module()
class MakeBicubic(BaseTransform):
    """The degraded image by MATLAB's bicubic downsampling, in 256 levels."""

    def transform(self, results: dict) -> dict:
        small = bicubic_down(np.ascontiguousarray(results["gt"]), results["scale"])
        results["lq"] = degradations.to_levels(small)
        return results


@TRANSFORMS.register_module()
class MakeNoisy(BaseTransform):
    """The degraded image by white Gaussian noise, neither clipped nor rounded.

    Args:
        sigma: standard deviation in 255ths, or a range that it is drawn from.
        seed: the same noise for every image of one size, drawn as published tests draw it; None: new noise.

    Raises:
        ValueError: `sigma` is neither a number nor a rising range.
    """

    def __init__(self, sigma: float | Sequence[float], seed: int | None = None) -> None:
        self.sigma = (sigma, sigma) if isinstance(sigma, (int, float)) else tuple(sigma)
        self.seed = seed
        if len(self.sigma) != 2 or not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma: expected a number or a rising range, found {sigma!r}")

    def transform(self, results: dict) -> dict:
        rng = None if self.seed is None else np.random.RandomState(self.seed)
        sigma = self.sigma[0] if self.sigma[0] == self.sigma[1] else np.random.uniform(*self.sigma)
        results["lq"] = degradations.gaussian_noise(results["gt"], sigma, rng)
        return results


@TRANSFORMS.register_module()
class MakeJpeg(BaseTransform):
    """The degraded image by JPEG compression.

    Args:
        quality: 1 to 100, or a range (both ends included) that it is drawn from.

    Raises:
        ValueError: `quality` is neither 1 to 100 nor a rising range in it.
    """

    def __init__(self, quality: int | Sequence[int]) -> None:
        self.quality = (quality, quality) if isinstance(quality, int) else tuple(quality)
        if len(self.quality) != 2 or not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(f"quality: expected 1 to 100, or a rising range, found {quality!r}")

    def transform(self, results: dict) -> dict:
        quality = np.random.randint(self.quality[0], self.quality[1] + 1)
        results["lq"] = degradations.jpeg(results["gt"], quality)
        return results


@TRANSFORMS.register_module()
class MakeRealistic(BaseTransform):
    """The degraded image by two passes of blur, resizing, noise and JPEG, then resizing to the scale (real SR).

    Args:
        blur, resize, noise, quality: ranges of both passes, see `camera_pass`.
        seed: the same draws for every image, for validation; None: new ones.

    Raises:
        ValueError: a range that does not rise above zero.
    """

    def __init__(
        self, blur: Sequence[float] = (0.2, 3.0), resize: Sequence[float] = (0.3, 1.4),
        noise: Sequence[float] = (1.0, 25.0), quality: Sequence[int] = (30, 95),
        seed: int | None = None,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.settings = dict(blur=tuple(blur), resize=tuple(resize), noise=tuple(noise), quality=tuple(quality))
        for name, ends in self.settings.items():
            if len(ends) != 2 or not 0 < ends[0] <= ends[1]:
                raise ValueError(f"{name}: expected a rising range above zero, found {ends}")

    def transform(self, results: dict) -> dict:
        rng = np.random.RandomState(np.random.randint(2**31) if self.seed is None else self.seed)
        image = np.ascontiguousarray(results["gt"])
        size = [side // results["scale"] for side in image.shape[:2]]
        for _ in range(2):
            image = degradations.camera_pass(image, rng=rng, **self.settings)
        results["lq"] = degradations.to_levels(degradations.resized(image, size, rng))
        return results


@TRANSFORMS.register_module()
class PackImagePair(BaseTransform):
    """`inputs` (C, H, W) and a `RestorationDataSample` with `gt_image` and where it came from.

    Raises:
        ValueError: no degraded image was loaded or made, values far outside [0, 1], or sizes that do not go together.
    """

    def transform(self, results: dict) -> dict:
        if "lq" not in results:
            raise ValueError("lq: there is no degraded image; add lq to the dataset or a Make... transform")
        gt, lq, scale = results["gt"], results["lq"], results["scale"]
        name = str(results.get("gt_path", results.get("name", "gt")))
        if gt.min() < 0 or gt.max() > 1:
            raise ValueError(f"{name}: found values from {gt.min():g} to {gt.max():g}, expected 0 to 1")
        gt = cut_to_pair(gt, lq, scale, name)
        sample = RestorationDataSample(gt_image=to_tensor(gt))
        known = {"dataset": results["dataset"]} if "dataset" in results else {}
        sample.set_metainfo({"name": results.get("name", ""), "path": name, "scale": scale, **known})
        return {"inputs": to_tensor(lq), "data_samples": sample}


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, C) to (C, H, W) float32."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
