"""Segmenting what boxes and points say, with an exported model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mamba_vision.deploy.metadata import number
from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.deploy.pictures import prepare, resize


class PromptSegmentor:
    """Segments what is meant; the arguments are those of `ModelFile`."""

    def __init__(self, model: str | Path | ModelFile, **options) -> None:
        self.model = model if isinstance(model, ModelFile) else ModelFile(model, **options)
        self.model.expect("promptable")
        info = self.model.info
        self.threshold = number(info, "threshold", 0, 1) if "threshold" in info else 0.5

    def __call__(
        self,
        picture: str | Path | np.ndarray,
        boxes: Sequence[Sequence[float]] = (),
        points: Sequence[Sequence[float]] = (),
        point_labels: Sequence[int] | None = None,
    ) -> np.ndarray:
        """(H, W) bool.

        Args:
            picture: a file, or an array (H, W, C) uint8, RGB.
            boxes: x1, y1, x2, y2 in pixels, half-open.
            points: x, y in pixels.
            point_labels: 1 for points of what is meant, 0 for points of what is not; default: all 1.

        Raises:
            FileNotFoundError: no such picture.
            ValueError: no picture, or prompts of other shapes, or outside of it.
        """
        if not isinstance(picture, np.ndarray):
            from mamba_vision.utils.picture_files import read_picture  # Pillow is for files

            color = read_picture(picture).color
            picture = np.rint(np.broadcast_to(color, (*color.shape[:2], 3)) * 255).astype(np.uint8)
        signs = [1] * len(points) if point_labels is None else list(point_labels)
        if len(signs) != len(points):
            raise ValueError(f"point_labels: found {len(signs)}, expected one for each of the {len(points)} points")
        x = prepare(picture, self.model.info["preprocess"])
        rows, places = self.model.inputs["boxes"][1], self.model.inputs["points"][1]
        (boxes, box_mask), (points, point_mask) = _rows(boxes, rows, 4, "boxes"), _rows(points, places, 2, "points")
        signs = np.array([signs + [0] * (places - len(signs))], np.int64)
        _check_inside(boxes[box_mask], points[point_mask], picture.shape[:2])
        # prompts are told in pixels of the picture, and the network sees it at the size of its test pipeline
        scale = np.array([x.shape[3] / picture.shape[1], x.shape[2] / picture.shape[0]] * 2, np.float32)
        logits = self.model(x, boxes * scale, points * scale[:2], signs, box_mask, point_mask)[0, 0]
        probability = 0.5 + 0.5 * np.tanh(logits / 2)
        return resize(probability, picture.shape[:2]) >= self.threshold


def _check_inside(boxes: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> None:
    """Raise ValueError for a box without area, or that does not touch the picture of `size`, and for points outside."""
    rows, columns = size
    for x1, y1, x2, y2 in boxes:
        if not (x1 < x2 and y1 < y2 and x1 < columns and y1 < rows and x2 > 0 and y2 > 0):
            raise ValueError(
                f"boxes: found {x1:g} {y1:g} {x2:g} {y2:g}, expected x1 < x2 and y1 < y2, in {columns} x {rows} pixels"
            )
    for x, y in points:
        if not (0 <= x < columns and 0 <= y < rows):
            raise ValueError(f"points: found {x:g} {y:g}, expected a place in {columns} x {rows} pixels")


def _rows(rows: Sequence[Sequence[float]], room: int, width: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as (1, room, width), and which are real, (1, room)."""
    if len(rows) > room:
        raise ValueError(f"{name}: the model has room for {room}, found {len(rows)}")
    if any(len(row) != width for row in rows):
        raise ValueError(f"{name}: expected rows of {width} numbers, found {rows!r}")
    array = np.zeros((1, room, width), np.float32)
    if len(rows):
        array[0, : len(rows)] = rows
    return array, np.arange(room)[None] < len(rows)
