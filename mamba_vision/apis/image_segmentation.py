"""Segmenting pictures with MMSegmentation's inferencer: files, folders or arrays, of any size."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from mamba_vision.apis.example_inputs import first_convolution
from mamba_vision.apis.image_model import init_image_model
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.image_files import check_sides, read_image
from mamba_vision.utils.quiet import quiet_imports

with quiet_imports():
    from mmseg.apis import MMSegInferencer


@dataclass
class SegmentedImage:
    """What became of one picture.

    Attributes:
        image: its file, or number among the arrays.
        mask: (H, W) uint8 or uint16, numbers of classes; None after an error.
        shares: share of the pixels of each class that was found, largest first.
        overlay: (H, W, 3) uint8 RGB, the picture with its classes in colour, where it was asked for.
        error: why there is nothing.
    """

    image: str
    mask: np.ndarray | None = None
    shares: dict[str, float] = field(default_factory=dict)
    overlay: np.ndarray | None = None
    error: str | None = None


class ImageSegmentationInferencer(MMSegInferencer):
    """MMSegmentation's inferencer for a configuration, with our strict weights-only loading.

    `segment` goes through many pictures, of which some may be damaged; calling the object is MMSegmentation's own way.

    Args:
        model: an MMSegmentation configuration.
        weights: file of weights.
        device: a GPU by default if there is one.

    Raises:
        FileNotFoundError, ValueError, CheckpointError: see `init_image_model`.
    """

    def __init__(
        self,
        model: str | Path | Config,
        weights: str | Path,
        device: str | torch.device | None = None,
    ) -> None:
        self._ready = init_image_model(model, weights, device)
        if not hasattr(self._ready, "decode_head"):
            raise ValueError(f"{model}: expected a semantic segmentor, found {type(self._ready).__name__}")
        self.channels = first_convolution(self._ready.backbone).in_channels
        self.classes = self._ready.dataset_meta["classes"]
        cfg = self._ready.cfg.copy()
        cfg.visualizer = dict(type="SegLocalVisualizer")  # draws for us, and writes nothing by itself
        super().__init__(cfg, device=str(next(self._ready.parameters()).device), show_progress=False)
        palette = self._ready.dataset_meta["palette"] or _colours(self._ready.decode_head.num_classes)
        self._ready.dataset_meta["palette"] = palette

    def _init_model(self, cfg: Config, weights: str | None, device: str = "cpu") -> nn.Module:
        return self._ready  # with its weights

    def segment(
        self,
        images: Iterable[str | Path | np.ndarray],
        overlay: bool = False,
        opacity: float = 0.5,
    ) -> Iterator[SegmentedImage]:
        """Masks of pictures, in their order; one that can't be read has an error instead.

        Args:
            images: files, or arrays (H, W, C), colour as BGR.
            overlay: also draw the classes over the picture.
            opacity: of these colours.
        """
        for number, image in enumerate(images):
            result = SegmentedImage(str(number) if isinstance(image, np.ndarray) else str(image))
            try:
                picture = read_image(image, self.channels)
                check_sides(picture, result.image)
                (data,) = self.preprocess([picture], batch_size=1)
                (sample,) = self.forward(data)
            except (ValueError, OSError) as error:
                result.error = str(error)
                yield result
                continue
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            result.mask = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)
            result.shares = self._shares(result.mask)
            if overlay:
                result.overlay = self._overlay(picture, sample.cpu(), opacity)
            yield result

    def name(self, number: int) -> str:
        """Name of a class, or its number where names are not known."""
        return self.classes[number] if self.classes else str(number)

    def _shares(self, mask: np.ndarray) -> dict[str, float]:
        numbers, counts = np.unique(mask, return_counts=True)
        pairs = sorted(zip(numbers.tolist(), counts.tolist()), key=lambda pair: -pair[1])
        return {self.name(number): count / mask.size for number, count in pairs}

    def _overlay(self, picture: np.ndarray, sample, opacity: float) -> np.ndarray:
        rgb = np.ascontiguousarray(picture[..., ::-1] if picture.shape[2] == 3 else picture[..., :1].repeat(3, 2))
        if rgb.shape[:2] == (1, 1):  # MMSegmentation's drawing takes the mask of one pixel for a number
            colour = np.array(self._ready.dataset_meta["palette"][int(sample.pred_sem_seg.data)])
            return (rgb * (1 - opacity) + colour * opacity).astype(np.uint8)
        classes = self.classes or [str(n) for n in range(self._ready.decode_head.num_classes)]
        self.visualizer.dataset_meta = dict(classes=classes, palette=self._ready.dataset_meta["palette"])
        self.visualizer.alpha = opacity
        self.visualizer.add_datasample("picture", rgb, sample, draw_gt=False, with_labels=bool(self.classes))
        return self.visualizer.get_image()


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write (H, W) numbers or (H, W, 3) RGB as PNG, atomically."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary)


def _colours(count: int) -> list[list[int]]:
    """Distinct colours, black for class 0."""
    from matplotlib import colormaps

    hues = colormaps["hsv"](np.linspace(0, 1, max(count, 2), endpoint=False))[:, :3]
    return [[0, 0, 0], *(255 * hues[1:]).round().astype(int).tolist()][:count]
