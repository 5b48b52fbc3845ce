"""Classifying many pictures, and going on where a run stopped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mamba_vision.apis.classification import Classified, ImageClassifierInferencer
from mamba_vision.apis.picture_jobs import Journal, weights_hash
from mamba_vision.utils.image_files import picture_names


@dataclass(frozen=True)
class RunOptions:
    """What can be chosen for a run; see tools/classify.py --help.

    Attributes:
        topk: classes reported.
        batch_size: pictures predicted together.
        draw: folder for the pictures with their label on them; None: they are not drawn.
        journal: file that keeps what is finished; None: nothing is kept.
        resume: take over what the journal knows as finished with the same weights and options.
    """

    topk: int = 5
    batch_size: int = 8
    draw: Path | None = None
    journal: Path | None = None
    resume: bool = False


def classify_images(
    inferencer: ImageClassifierInferencer, images: Sequence[Path], options: RunOptions
) -> Iterator[Classified]:
    """The likeliest classes of each picture; first of those that are finished, then of the others, in their order."""
    names = picture_names(images, ".png")
    files = {str(image): [] if options.draw is None else [options.draw / names[str(image)]] for image in images}
    journal = None
    if options.journal is not None:
        journal = Journal(options.journal, {"weights": weights_hash(inferencer.model), "topk": options.topk})
    left = []
    for image in images:
        known = journal.finished([image], files[str(image)]) if journal is not None and options.resume else None
        if known is None:
            left.append(image)
        else:
            yield Classified(str(image), **known)
    draw = None if options.draw is None else lambda image: files[image][0]
    for image, result in zip(left, inferencer.classify(left, options.batch_size, options.topk, draw)):
        if journal is not None and not result.error:
            journal.note([image], files[str(image)], labels=result.labels, scores=result.scores)
        yield result
