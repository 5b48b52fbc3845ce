"""Segmenting many pictures into a folder: masks, overlays and a table, and going on where a run stopped."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mamba_vision.apis.image_segmentation import ImageSegmentationInferencer, write_png
from mamba_vision.apis.picture_jobs import JOURNAL, Journal, weights_hash
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.folder_lock import SEGMENTATION, folder_lock
from mamba_vision.utils.image_files import picture_names


@dataclass(frozen=True)
class PictureOptions:
    """What can be chosen for a run; see tools/segment_image.py --help."""

    overlays: bool = True
    opacity: float = 0.5
    resume: bool = False


def segment_images(
    inferencer: ImageSegmentationInferencer, images: Sequence[Path], out: Path, options: PictureOptions,
    report: Callable[[str], None] = print,
) -> list[str]:  # fmt: skip
    """Segment pictures into masks/*.png (numbers of classes), overlays/*.png and shares.csv, the share of each class.

    A picture that fails is reported, and the others go on. The table is written however the run ends, and keeps what an
    earlier run into the folder said of other pictures. With `options.resume` pictures are left alone that are finished
    with the same weights and options.

    Args:
        images: files.
        out: folder of the results, and of finished.jsonl, by which a later run resumes.
        report: takes a line a picture.

    Returns:
        Reasons, of the pictures that failed.

    Raises:
        BlockingIOError: another process segments into `out`, whose table this would lose.
    """
    with folder_lock(out, SEGMENTATION):
        return _segment(inferencer, images, out, options, report)


def _segment(
    inferencer: ImageSegmentationInferencer, images: Sequence[Path], out: Path, options: PictureOptions,
    report: Callable[[str], None],
) -> list[str]:  # fmt: skip
    names, shares, failed = picture_names(images, ".png"), {}, []
    settings = {"weights": weights_hash(inferencer.model), "opacity": options.opacity if options.overlays else None}
    journal = Journal(out / JOURNAL, settings)
    kinds = ("masks", "overlays") if options.overlays else ("masks",)
    files = {image: [out / kind / names[str(image)] for kind in kinds] for image in images}
    left = []
    for image in images:
        found = journal.finished([image], files[image]) if options.resume else None
        if found is None:
            left.append(image)
            continue
        shares[str(image)] = found["shares"]
        report(f"{image}: {files[image][0]} is there")
    try:
        for image, result in zip(left, inferencer.segment(left, options.overlays, options.opacity)):
            if result.error:
                failed.append(result.error)
                report(f"{image}: FAILED")
                continue
            pictures = (result.mask, result.overlay) if options.overlays else (result.mask,)
            for file, picture in zip(files[image], pictures):
                write_png(file, picture)
            shares[str(image)] = result.shares
            journal.note([image], files[image], shares=result.shares)
            most = ", ".join(f"{name} {100 * share:.1f} %" for name, share in list(result.shares.items())[:4])
            report(f"{image}: {most}")
    finally:  # also after Ctrl-C
        _write_shares(out / "shares.csv", shares)
    return failed


def _write_shares(path: Path, shares: Mapping[str, Mapping[str, float]]) -> None:
    """Write the rows of each picture, after those that an earlier run has written of others."""
    head, before = ["image", "class", "share"], []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            first, *before = list(csv.reader(file)) or [head]
        before = [row for row in before if row and row[0] not in shares] if first == head else []
    now = [[image, name, f"{share:.6f}"] for image, found in shares.items() for name, share in found.items()]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *before, *now])
