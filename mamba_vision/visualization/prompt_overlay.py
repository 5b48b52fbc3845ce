"""A picture with a mask over it and the prompts that asked for it. Takes arrays."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

MASK, BOX, MEANT, NOT_MEANT = (255, 196, 0), (0, 220, 255), (40, 230, 80), (255, 60, 60)


def draw_prompts(
    image: np.ndarray, mask: np.ndarray | None = None, boxes: Sequence[Sequence[float]] = (),
    points: Sequence[Sequence[float]] = (), opacity: float = 0.45, corner: Sequence[float] | None = None,
) -> np.ndarray:  # fmt: skip
    """The picture with the mask tinted and outlined, boxes as frames, points as discs: green meant, red not.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        boxes: x1, y1, x2, y2 in pixels, half-open.
        points: x, y, label.
        opacity: of the tint, 0 to 1.
        corner: x, y of the first corner of a box that is not finished.

    Returns:
        (H, W, 3) uint8.
    """
    out = image.astype(np.float32)
    line = max(round(max(image.shape[:2]) / 300), 1)
    if mask is not None and mask.any():
        out[mask] = (1 - opacity) * out[mask] + opacity * np.float32(MASK)
        inner = ndimage.binary_erosion(mask, iterations=line, border_value=1)
        out[mask & ~inner] = MASK
    canvas = Image.fromarray(np.rint(out).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for x1, y1, x2, y2 in boxes:
        draw.rectangle([x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)], outline=BOX, width=line)
    radius = 2 * line
    for x, y, label in points:
        disc = [x - radius, y - radius, x + radius, y + radius]
        draw.ellipse(disc, fill=MEANT if label else NOT_MEANT, outline=(0, 0, 0))
    if corner is not None:
        x, y = corner
        for ends in ([x - 4 * line, y, x + 4 * line, y], [x, y - 4 * line, x, y + 4 * line]):
            draw.line(ends, fill=BOX, width=line)
    return np.asarray(canvas)
