"""Classifying pictures with an exported model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.deploy.pictures import prepare, read_rgb


@dataclass(frozen=True)
class Classes:
    """The likeliest classes, likeliest first: their names (numbers where the model has none) and probabilities."""

    labels: list[str]
    scores: list[float]


class Classifier:
    """Classifies pictures; the arguments are those of `ModelFile`."""

    def __init__(self, model: str | Path | ModelFile, **options) -> None:
        self.model = model if isinstance(model, ModelFile) else ModelFile(model, **options)
        self.model.expect("classification")
        self.channels = next(iter(self.model.inputs.values()))[1]

    def __call__(self, picture: str | Path | np.ndarray, topk: int = 5) -> Classes:
        """Classify one picture: a file, or an array (H, W, C) uint8, RGB or gray.

        Raises:
            FileNotFoundError, ValueError: no such picture, a damaged one, or one that the model cannot take.
        """
        if not isinstance(picture, np.ndarray):
            picture = read_rgb(picture, self.channels)
        logits = self.model(prepare(picture, self.model.info["preprocess"]))[0].astype(np.float64)
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        best = np.argsort(-chances, kind="stable")[:topk]
        labels = self.model.info.get("labels")
        return Classes([str(labels[n]) if labels else str(n) for n in best.tolist()], [float(chances[n]) for n in best])
