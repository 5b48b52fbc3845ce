"""What a person does on a picture by clicking: corners of boxes, points, undo, clear; and what it looks like."""

from dataclasses import dataclass, field

import numpy as np

from mamba_vision.apis.prompt_inference import PromptPredictor, PromptResult
from mamba_vision.apis.prompt_run import counted
from mamba_vision.visualization.prompt_overlay import draw_prompts

BOX, MEANT, NOT_MEANT = "box: click two corners", "point: this", "point: not this"
MODES = (BOX, MEANT, NOT_MEANT)


@dataclass
class PromptSession:
    """One picture under one person's clicks.

    Attributes:
        predictor: with the picture set.
        name: that tells it from others.
        boxes: rows x1, y1, x2, y2.
        points: rows x, y, label.
        corner: x, y of the first corner of a box that waits for the second.
    """

    predictor: PromptPredictor
    name: str = ""
    boxes: list[list[float]] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)
    corner: tuple[int, int] | None = None
    _order: list[str] = field(default_factory=list)  # which list each prompt went to, for undo
    _result: PromptResult | None = None

    def click(self, x: int, y: int, mode: str) -> None:
        """A click on pixel (x, y): a corner, the second of which makes a box, or a point.

        Raises:
            ValueError: an unknown mode, or a pixel outside of the picture.
        """
        rows, columns = self.predictor.image.shape[:2]
        if mode not in MODES:
            raise ValueError(f"mode: found {mode!r}, expected one of {', '.join(MODES)}")
        if not (0 <= x < columns and 0 <= y < rows):
            raise ValueError(f"click: found {x}, {y}, expected a pixel of the picture of {columns} x {rows}")
        if mode != BOX:
            self.corner = None
            self._add("points", [x, y, int(mode == MEANT)])
        elif self.corner is None:
            self.corner = (x, y)
        else:
            # Both clicked pixels belong to the box, and a box has at least one.
            (x1, x2), (y1, y2) = sorted((self.corner[0], x)), sorted((self.corner[1], y))
            self.corner = None
            self._add("boxes", [x1, y1, x2 + 1, y2 + 1])

    def undo(self) -> None:
        """Take back the last click."""
        if self.corner is not None:
            self.corner = None
        elif self._order:
            getattr(self, self._order.pop()).pop()
            self._result = None

    def clear(self) -> None:
        """Forget all prompts."""
        self.boxes, self.points, self.corner, self._order, self._result = [], [], None, [], None

    @property
    def result(self) -> PromptResult:
        """What the prompts give by now; without any, what the model looks for by itself."""
        if self._result is None:
            self._result = self.predictor.predict(self.boxes, self.points)
        return self._result

    def view(self) -> np.ndarray:
        """The picture with mask and prompts, (H, W, 3) uint8."""
        return draw_prompts(self.predictor.image, self.result.mask, self.boxes, self.points, corner=self.corner)

    def summary(self) -> str:
        """What there is, in words."""
        found = self.result.statistics()
        lines = [counted(len(self.boxes), len(self.points)) or "no prompt: the model looks by itself"]
        if self.corner is not None:
            lines.append("click the opposite corner")
        if found["pixels"]:
            x1, y1, x2, y2 = found["box"]
            lines.append(f"mask: {found['pixels']} pixels, {100 * found['share']:.1f} % of the picture, "
                         f"{found['pieces']} piece{'s'[: found['pieces'] > 1]}, within {x1},{y1} to {x2},{y2}, "
                         f"mean probability {found['mean_probability']:.2f}")  # fmt: skip
        else:
            lines.append("mask: empty")
        return "\n\n".join(lines)

    def _add(self, where: str, row: list[float]) -> None:
        getattr(self, where).append(row)
        self._order.append(where)
        self._result = None
