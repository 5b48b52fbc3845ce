"""The course of a search for scan directions, kept in a file beside the checkpoints."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mamba_vision.models.mixers.direction_merge import strongest_directions
from mamba_vision.utils.atomic import write_json


@dataclass
class DirectionHistory:
    """Direction weights of all layers at some iterations.

    Attributes:
        candidates: K names.
        keep: how many of them a layer of the found network keeps.
        iterations: S numbers, rising.
        weights: S arrays (layers, K), rows sum to 1.
    """

    candidates: tuple[str, ...]
    keep: int = 4
    iterations: list[int] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)

    def record(self, iteration: int, weights_NK: np.ndarray) -> None:
        """Add the weights after `iteration` iterations; what was noted for this or a later one is forgotten."""
        self.forget(iteration - 1)
        self.iterations.append(int(iteration))
        self.weights.append(np.asarray(weights_NK, dtype=np.float64))

    def forget(self, last: int) -> None:
        """Keep what was noted up to the iteration `last`: a resumed search begins there."""
        while self.iterations and self.iterations[-1] > last:
            self.iterations.pop()
            self.weights.pop()

    @property
    def found(self) -> list[tuple[str, ...]]:
        """The directions that each layer would keep now."""
        return [strongest_directions(row, self.candidates, self.keep) for row in self.weights[-1]]

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, atomically; with it, for readers, what would be kept now."""
        return write_json(
            path,
            {
                "candidates": list(self.candidates),
                "keep": self.keep,
                "found": [" ".join(names) for names in self.found],
                "iterations": self.iterations,
                "weights": [np.round(one, 6).tolist() for one in self.weights],
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> "DirectionHistory":
        """What `save` wrote.

        Raises:
            ValueError: the file is something else.
        """
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
            weights = [np.asarray(one) for one in read["weights"]]
            history = cls(tuple(read["candidates"]), int(read["keep"]), list(read["iterations"]), weights)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the course of a search ({error!r})") from error
        if len(history.iterations) != len(weights) or any(one.shape != weights[0].shape for one in weights):
            raise ValueError(f"{path}: found {len(weights)} weights, expected one for each iteration, all of one shape")
        return history
