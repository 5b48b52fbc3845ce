"""Segmenting pictures by boxes and points from Python.

model = init_prompt_model("work_dirs/promamba-tiny_1xb16-100e_polyps-352x352")
result = segment_with_prompts(model, "frame.png", boxes=[[120, 80, 260, 190]])
result.save("mask.png")
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from mamba_vision.apis.pixel_model import half_precision
from mamba_vision.datasets.prompt_images import check_inside, parse_prompts, read_rgb
from mamba_vision.datasets.prompt_simulation import Prompts, box_of
from mamba_vision.models.tasks.prompt_segmentor import PromptSegmentor
from mamba_vision.structures import PromptDataSample
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.visualization.prompt_overlay import draw_prompts

Rows = Sequence[Sequence[float]]


@dataclass
class PromptResult:
    """What prompts gave.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
        probability: (H, W) float32 in [0, 1].
        prompts: as given, in pixels of the picture.
    """

    image: np.ndarray
    mask: np.ndarray
    probability: np.ndarray
    prompts: Prompts = field(default_factory=Prompts)

    def statistics(self) -> dict[str, Any]:
        """Size and place of the mask.

        pixels, share of the picture, connected pieces, box (x1, y1, x2, y2, half-open) and centroid (x, y) in pixels,
        mean probability inside; None where there is no mask to tell of.
        """
        found = bool(self.mask.any())
        rows, columns = np.nonzero(self.mask)
        return {
            "pixels": int(self.mask.sum()),
            "share": round(float(self.mask.mean()), 6),
            "pieces": int(ndimage.label(self.mask, np.ones((3, 3)))[1]),
            "box": box_of(self.mask).astype(int).tolist() if found else None,
            "centroid": [round(float(columns.mean()), 2), round(float(rows.mean()), 2)] if found else None,
            "mean_probability": round(float(self.probability[self.mask].mean()), 4) if found else None,
        }

    def overlay(self, opacity: float = 0.45) -> np.ndarray:
        """The picture with mask and prompts over it, (H, W, 3) uint8."""
        points = np.column_stack([self.prompts.points, self.prompts.labels])
        return draw_prompts(self.image, self.mask, self.prompts.boxes, points, opacity)

    def save(self, path: str | Path) -> Path:
        """Write the mask as a picture of 0 and 255, atomically."""
        with atomic_path(path) as temporary:
            Image.fromarray(np.where(self.mask, 255, 0).astype(np.uint8)).save(temporary)
        return Path(path)


class PromptPredictor:
    """Holds one picture's features, so that each further prompt costs the decoder only.

    Args:
        model: of `init_prompt_model`.
        amp: compute in bfloat16 (float16 on GPUs without it).
    """

    def __init__(self, model: PromptSegmentor, amp: bool = False) -> None:
        self.model, self.amp = model, amp
        self.image: np.ndarray | None = None
        self._features: tuple[torch.Tensor, ...] = ()
        self._size = (0, 0)

    @torch.inference_mode()
    def set_image(self, image: str | Path | np.ndarray) -> "PromptPredictor":
        """Look at a picture: a file, or (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: no such file, no image, or an array of another kind.
        """
        array = image if isinstance(image, np.ndarray) else read_rgb(image)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise ValueError(f"image: found an array of {array.dtype} {array.shape}, expected uint8 (H, W, 3)")
        small = array if self.model.resize is None else self.model.resize.transform({"image": array})["image"]
        inputs = torch.from_numpy(np.ascontiguousarray(small)).permute(2, 0, 1)
        data = self.model.data_preprocessor({"inputs": [inputs]})
        with half_precision(self.model, self.amp):
            self._features = self.model.network.encode(data["inputs"])
        self.image, self._size = array, small.shape[:2]
        return self

    @torch.inference_mode()
    def predict(self, boxes: Rows = (), points: Rows = ()) -> PromptResult:
        """The mask that prompts mean.

        Args:
            boxes: rows x1, y1, x2, y2 in pixels of the picture, half-open.
            points: rows x, y, label; label 1 is meant, 0 is not.

        Raises:
            ValueError: no picture was set, or prompts of another form or outside of it.
        """
        if self.image is None:
            raise ValueError("image: none was set")
        prompts = parse_prompts({"boxes": list(boxes), "points": list(points)}, "prompts")
        check_inside(prompts, self.image.shape[:2], "prompts")
        rows, columns = self.image.shape[:2]
        scaled = prompts.scaled(self._size[1] / columns, self._size[0] / rows)
        sample = PromptDataSample(
            boxes=torch.from_numpy(scaled.boxes), points=torch.from_numpy(scaled.points),
            labels=torch.from_numpy(scaled.labels),
        )  # fmt: skip
        with half_precision(self.model, self.amp):
            found = self.model.probabilities(self._features, [sample], self._size)
        probability = F.interpolate(found, (rows, columns), mode="bilinear", align_corners=False)[0, 0].cpu().numpy()
        return PromptResult(self.image, probability >= self.model.threshold, probability, prompts)


def segment_with_prompts(
    model: PromptSegmentor, image: str | Path | np.ndarray, boxes: Rows = (), points: Rows = (), amp: bool = False
) -> PromptResult:
    """The mask that boxes (x1, y1, x2, y2) and points (x, y, label) mean, or, without any, what the model looks for.

    Raises:
        FileNotFoundError, ValueError: see `PromptPredictor`.
    """
    return PromptPredictor(model, amp).set_image(image).predict(boxes, points)
