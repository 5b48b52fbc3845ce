"""Pictures and masks that prompts go with, and files of prompts."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.datasets.prompt_simulation import Prompts
from mamba_vision.utils.picture_files import read_picture

FOREGROUND = 128  # the field's threshold of masks stored as gray pictures
_KEYS = {"boxes", "points"}


def read_rgb(path: str | Path) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB; gray becomes three equal channels, 16 bits become 8, transparency is dropped.

    Raises:
        FileNotFoundError, ValueError: no such file, or it is no image.
    """
    color = read_picture(path).color
    return np.rint(np.broadcast_to(color, (*color.shape[:2], 3)) * 255).astype(np.uint8)


def read_mask(path: str | Path) -> np.ndarray:
    """A mask as (H, W) bool: what is at least 128 of 255 in any channel. (Colors of several kinds of polyps are one.)

    Raises:
        FileNotFoundError, ValueError: no such file, or it is no image.
    """
    levels = np.rint(read_picture(path).color.max(2) * 255)
    return levels >= FOREGROUND


def read_prompts(path: str | Path) -> dict[str, Prompts]:
    """Prompts by name of the picture, from a JSON file.

        {"polyp_1.png": {"boxes": [[x1, y1, x2, y2]], "points": [[x, y, label]]}, ...}

    In pixels of the picture; label is 1 for a point of what is meant, 0 for one of what is not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: something else in it; the message names the entry.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object of picture names, found {type(content).__name__}")
    return {name: parse_prompts(entry, f"{path}: {name}") for name, entry in content.items()}


def parse_prompts(entry: Any, name: str) -> Prompts:
    """Prompts of {'boxes': [[x1, y1, x2, y2] ...], 'points': [[x, y, label] ...]}, either may be missing.

    Raises:
        ValueError: another form, a box without area, or a label that is neither 0 nor 1; it begins with `name`.
    """
    if not isinstance(entry, dict) or set(entry) - _KEYS:
        found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise ValueError(f"{name}: expected an object of boxes and points, found {found}")
    boxes = _table(entry.get("boxes", []), 4, f"{name}: boxes")
    rows = _table(entry.get("points", []), 3, f"{name}: points")
    for box in boxes:
        if not (box[2] > box[0] and box[3] > box[1]):
            raise ValueError(f"{name}: found box {_shown(box)}, expected x1 < x2 and y1 < y2")
    for row in rows:
        if row[2] not in (0, 1):
            raise ValueError(
                f"{name}: found label {row[2]:g} of point {_shown(row[:2])}, expected 1 (meant) or 0 (not)"
            )
    return Prompts(boxes, rows[:, :2], rows[:, 2].astype(np.int64))


def check_inside(prompts: Prompts, size: tuple[int, int], name: str) -> None:
    """Raise ValueError where a box does not touch the picture of `size` (rows, columns), or a point is outside."""
    rows, columns = size
    for box in prompts.boxes:
        if box[0] >= columns or box[1] >= rows or box[2] <= 0 or box[3] <= 0:
            raise ValueError(f"{name}: box {_shown(box)} lies outside the picture of {columns} x {rows} pixels")
    for x, y in prompts.points:
        if not (0 <= x < columns and 0 <= y < rows):
            raise ValueError(f"{name}: point {_shown((x, y))} lies outside the picture of {columns} x {rows} pixels")


def _table(rows: Any, width: int, name: str) -> np.ndarray:
    try:
        table = np.array(rows, np.float32).reshape(-1, width) if len(rows) else np.zeros((0, width), np.float32)
    except (ValueError, TypeError):
        table = None
    if table is None or len(table) != len(rows) or not np.isfinite(table).all():
        raise ValueError(f"{name}: found {rows}, expected rows of {width} numbers")
    return table


def _shown(numbers: Any) -> str:
    return ",".join(f"{number:g}" for number in numbers)
