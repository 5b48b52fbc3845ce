"""Segmenting pictures with an exported model: prepared and put together as PyTorch's tools do it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.deploy.pictures import prepare, read_rgb, resize
from mamba_vision.deploy.windows import sliding_window

Progress = Callable[[int, int], None]


class PictureSegmentor:
    """Finds the class of every pixel; the arguments are those of `ModelFile`."""

    def __init__(self, model: str | Path | ModelFile, **options) -> None:
        self.model = model if isinstance(model, ModelFile) else ModelFile(model, **options)
        self.model.expect("segmentation")
        self.channels = next(iter(self.model.inputs.values()))[1]

    def __call__(self, picture: str | Path | np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """(H, W) uint8 or uint16, numbers of classes, of a file or an array (H, W, C) uint8, RGB or gray.

        Raises:
            FileNotFoundError, ValueError: no such picture, a damaged one, or one that the model cannot take.
        """
        if not isinstance(picture, np.ndarray):
            picture = read_rgb(picture, self.channels)
        x = prepare(picture, self.model.info["preprocess"])
        logits = resize(self._logits(x, progress), picture.shape[:2])
        mask = logits.argmax(0)
        return mask.astype(np.uint8 if len(logits) <= 256 else np.uint16)

    def _logits(self, x: np.ndarray, progress: Progress | None) -> np.ndarray:
        """(K, h, w) of the prepared picture, by windows where the model was tested so, or takes one size alone."""
        window = self.model.info.get("window")
        fixed = (self.model.side(2), self.model.side(3))
        if window is None and None in fixed:
            return self.model(x)[0]
        size = tuple(window["size"]) if window else fixed
        stride = tuple(window["stride"]) if window else tuple(max(1, side // 2) for side in fixed)
        sides = tuple(min(pair) if None in fixed else pair[0] for pair in zip(size, x.shape[2:]))
        classes = self.model(np.zeros((1, x.shape[1], *sides), np.float32)).shape[1]
        out = np.zeros((classes, *x.shape[2:]), np.float32)
        sliding_window(x[0], self.model, sides, stride, out, lambda side: np.ones(side, np.float32), progress)
        return out
