"""From files to an image and its prompts: reading, augmenting, resizing, making prompts from the mask, packing.

Between the steps, `image` is (H, W, 3) uint8 RGB and `mask` (H, W) bool, both arrays. `prompts` are `Prompts`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torchvision import tv_tensors
from torchvision.transforms import v2

from mamba_vision.datasets import prompt_simulation as simulation
from mamba_vision.datasets.prompt_images import read_mask, read_prompts, read_rgb
from mamba_vision.datasets.prompt_simulation import Prompts
from mamba_vision.registry import TRANSFORMS
from mamba_vision.structures import PromptDataSample

MODES = ("none", "gt_box", "gt_box_jitter", "point", "detector")
MIX = {"box": 0.55, "point": 0.15, "none": 0.3}
_META = ("name", "path", "ori_shape", "dataset", "prompt_mode")

# Below, transforms draw from NumPy's and torch's global generators, which MMEngine seeds in every loading process.


@TRANSFORMS.register_module()
class LoadPromptImage(BaseTransform):
    """Read `path` and, where there is one, `mask_path`; entries that have `image` and `mask` already keep them.

    Raises:
        FileNotFoundError, ValueError: a file that is missing or no image.
        ValueError: a mask of another size than its image.
    """

    def transform(self, results: dict) -> dict:
        if "image" not in results:
            results["image"] = read_rgb(results["path"])
        if "mask" not in results and "mask_path" in results:
            results["mask"] = read_mask(results["mask_path"])
        results["ori_shape"] = results["image"].shape[:2]
        if "mask" in results:
            results["truth"] = results["mask"]
            if results["mask"].shape != results["ori_shape"]:
                (rows, columns), (r, c) = results["ori_shape"], results["mask"].shape
                raise ValueError(f"{results['mask_path']}: found {c} x {r} pixels, its image has {columns} x {rows}")
        return results


@TRANSFORMS.register_module()
class ResizePrompted(BaseTransform):
    """Resize the image (bilinear, antialiased) and its mask (nearest) to one size, whatever their shape.

    Args:
        size: side, or (rows, columns).

    Raises:
        ValueError: `size` is neither a side nor two.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size: found {size}, expected a side, or rows and columns")

    def transform(self, results: dict) -> dict:
        return _apply(v2.Resize(self.size, antialias=True), results)


@TRANSFORMS.register_module()
class AugmentPrompted(BaseTransform):
    """Flips, quarter turns, scaling about the middle and color jitter, of image and mask alike.

    Args:
        scale: lowest and highest factor.
        jitter: of brightness, contrast and saturation.
        flip: probability of each of the flips; quarter turns are drawn where the image is square.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(self, scale: tuple[float, float] = (0.75, 1.25), jitter: float = 0.2, flip: float = 0.5) -> None:
        if not 0 < scale[0] <= scale[1] or not 0 <= jitter < 1 or not 0 <= flip <= 1:
            raise ValueError(f"expected 0 < scale, jitter and flip in [0, 1], found {scale}, {jitter}, {flip}")
        self.flip = flip
        self.steps = v2.Compose([
            v2.RandomHorizontalFlip(flip), v2.RandomVerticalFlip(flip), v2.RandomAffine(0, scale=tuple(scale)),
            v2.ColorJitter(jitter, jitter, jitter),
        ])  # fmt: skip

    def transform(self, results: dict) -> dict:
        results = _apply(self.steps, results)
        if self.flip and results["image"].shape[0] == results["image"].shape[1]:
            turns = np.random.randint(4)
            for name in ("image", "mask"):
                results[name] = np.ascontiguousarray(np.rot90(results[name], turns))
        return results


@TRANSFORMS.register_module()
class SimulatePrompts(BaseTransform):
    """Boxes and points from the mask, as it is by now.

    For training a kind is drawn for each image: boxes with shifted sides of which a tenth is flawed, one to three
    points, or nothing, which has to be trained, or it will not work. For testing, by the entry's `prompt_mode`: 'none';
    'gt_box', a box around every piece, which tells where the answer is and how large; 'gt_box_jitter', the same with
    shifted sides, equal in every run; 'point', the middle of every piece; 'detector', boxes and points of a file.

    Args:
        mix: probabilities of 'box', 'point' and 'none' for entries without a mode.
        file: for 'detector', see `read_prompts`; images are found by DATASET/NAME, or NAME, with their suffix.

    Raises:
        ValueError: an unknown kind or mode, probabilities that are not, or 'detector' without a file.
    """

    def __init__(self, mix: Mapping[str, float] | None = None, file: str | None = None) -> None:
        self.mix = dict(MIX if mix is None else mix)
        if set(self.mix) - set(MIX) or min(self.mix.values()) < 0 or abs(sum(self.mix.values()) - 1) > 1e-6:
            raise ValueError(f"mix: found {self.mix}, expected probabilities of {', '.join(MIX)} that add up to 1")
        self.stored = None if file is None else read_prompts(file)

    def transform(self, results: dict) -> dict:
        mode = results.get("prompt_mode")
        if mode is None:
            kind = np.random.choice(list(self.mix), p=list(self.mix.values()))
            results["prompts"] = self._simulated(kind, results["mask"])
        elif mode in MODES:
            results["prompts"] = self._exact(mode, results)
        else:
            raise ValueError(f"prompt_mode: found {mode!r}, expected one of {', '.join(MODES)}")
        return results

    def _simulated(self, kind: str, mask: np.ndarray) -> Prompts:
        random = np.random.default_rng(np.random.randint(2**31))
        if kind == "none" or not mask.any():
            return Prompts()
        simulate = simulation.simulate_boxes if kind == "box" else simulation.simulate_points
        return simulate(mask, random)

    def _exact(self, mode: str, results: dict) -> Prompts:
        mask = results.get("mask")
        if mode == "none":
            return Prompts()
        if mode == "detector":
            return self._stored(results)
        if mode == "point":
            return simulation.exact_points(mask)
        boxes = simulation.boxes_of(mask)
        if mode == "gt_box_jitter":
            random = np.random.default_rng((0, results.get("sample_idx", 0)))
            boxes = simulation.jittered(boxes, mask.shape, random)
        return Prompts(boxes=boxes)

    def _stored(self, results: dict) -> Prompts:
        if self.stored is None:
            raise ValueError("file: prompt mode 'detector' needs a file of boxes")
        file = results["path"].replace("\\", "/").rpartition("/")[2]
        found = self.stored.get(f"{results.get('dataset')}/{file}", self.stored.get(file, Prompts()))
        rows, columns = results["image"].shape[:2]
        return found.scaled(columns / results["ori_shape"][1], rows / results["ori_shape"][0])


@TRANSFORMS.register_module()
class PackPrompted(BaseTransform):
    """The image as `inputs` (3, H, W) uint8, the rest as `data_samples`.

    Args:
        original_mask: hand on the mask as it was read, for tests at the size of the file.
    """

    def __init__(self, original_mask: bool = False) -> None:
        self.original_mask = original_mask

    def transform(self, results: dict) -> dict:
        sample = PromptDataSample(metainfo={key: results[key] for key in _META if key in results})
        prompts = results.get("prompts", Prompts())
        for name in ("boxes", "points", "labels"):
            sample.set_field(torch.from_numpy(getattr(prompts, name).copy()), name)
        mask = results.get("truth" if self.original_mask else "mask")
        if mask is not None:
            sample.gt_mask = torch.from_numpy(np.ascontiguousarray(mask))
        image = torch.from_numpy(np.ascontiguousarray(results["image"].transpose(2, 0, 1)))
        return {"inputs": image, "data_samples": sample}


def _apply(step: v2.Transform, results: dict) -> dict:
    """A step of torchvision on image and mask."""
    given = {"image": tv_tensors.Image(torch.from_numpy(results["image"]).permute(2, 0, 1))}
    if "mask" in results:
        given["mask"] = tv_tensors.Mask(torch.from_numpy(results["mask"]).to(torch.uint8)[None])
    made = step(given)
    results["image"] = made["image"].permute(1, 2, 0).contiguous().numpy()
    if "mask" in results:
        results["mask"] = made["mask"][0].bool().numpy()
    return results
