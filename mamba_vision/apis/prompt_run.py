"""Segmenting a picture with the prompts of a command line, or a folder with a file of prompts."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mamba_vision.apis.picture_jobs import JOURNAL, Journal, weights_hash
from mamba_vision.apis.prompt_inference import PromptPredictor
from mamba_vision.datasets.prompt_images import read_prompts
from mamba_vision.datasets.prompt_simulation import Prompts
from mamba_vision.models.tasks.prompt_segmentor import PromptSegmentor
from mamba_vision.utils.atomic import atomic_path, write_json
from mamba_vision.utils.folder_lock import SEGMENTATION, folder_lock
from mamba_vision.utils.image_files import find_images, picture_names

COLUMNS = ("image", "boxes", "points", "pixels", "share", "pieces", "box", "centroid", "mean_probability", "error")


@dataclass(frozen=True)
class PromptOptions:
    """What can be chosen for a run; see tools/segment.py --help."""

    overlays: bool = True
    statistics: bool = True
    probabilities: bool = False
    resume: bool = False
    amp: bool = False


def collect_prompts(
    inputs: Sequence[str | Path], boxes: Sequence[Sequence[float]] = (), points: Sequence[Sequence[float]] = (),
    file: str | Path | None = None, recursive: bool = False,
) -> dict[Path, Prompts]:  # fmt: skip
    """Pictures and what each is asked; without anything they are asked nothing.

    Args:
        inputs: pictures, and folders of them.
        boxes, points: of the only picture.
        file: prompts of many, see `read_prompts`.
        recursive: also look into folders inside folders.

    Raises:
        FileNotFoundError: a picture, folder or file that is not there.
        ValueError: prompts for one picture where there are more, both ways of giving them, or names without picture.
    """
    images = find_images(inputs, recursive)
    own = Prompts(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([row[:2] for row in points], np.float32).reshape(-1, 2),
        np.array([row[2] for row in points], np.int64),
    )
    given = len(own.boxes) + len(own.points)
    if given and file is not None:
        raise ValueError("--prompts: give prompts in a file or by --box and --points, not both")
    if given and len(images) > 1:
        raise ValueError(f"--box, --points: found {len(images)} pictures, expected one; give theirs by --prompts FILE")
    if file is None:
        return dict.fromkeys(images, own)
    stored = read_prompts(file)
    if unknown := sorted(set(stored) - {image.name for image in images}):
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(f"{file}: found prompts for {', '.join(unknown[:5])}{more}, of which there is no picture")
    return {image: stored.get(image.name, Prompts()) for image in images}


def segment_pictures(
    model: PromptSegmentor, pictures: Mapping[Path, Prompts], out: Path, options: PromptOptions,
    report: Callable[[str], None] = print,
) -> dict[Path, str]:  # fmt: skip
    """Segment pictures into masks/*.png (0 and 255), overlays/*.png, statistics.csv and statistics.json.

    A picture that fails is reported, and the others go on. The tables are written however the run ends, and keep what
    an earlier run into the folder said of other pictures. With `options.resume` pictures are left alone that are
    finished with the same weights, prompts and options.

    Returns:
        Path to reason, of those that failed.

    Raises:
        BlockingIOError: another process segments into `out`, whose tables this would lose.
    """
    predictor, names = PromptPredictor(model, options.amp), picture_names(pictures, ".png")
    with folder_lock(out, SEGMENTATION):
        rows = _read_statistics(out)
        journal = Journal(out / JOURNAL, {"weights": weights_hash(model), "amp": options.amp})
        try:
            return _segment(predictor, pictures, names, out, options, rows, journal, report)
        finally:
            if options.statistics and rows:
                _write_statistics(out, list(rows.values()))


def _segment(
    predictor: PromptPredictor, pictures: Mapping[Path, Prompts], names: Mapping[str, str], out: Path,
    options: PromptOptions, rows: dict[str, dict], journal: Journal, report: Callable[[str], None],
) -> dict[Path, str]:  # fmt: skip
    """What segment_pictures does and returns, with a row a picture put into `rows` as it goes."""
    failed: dict[Path, str] = {}
    wanted = {"masks": True, "overlays": options.overlays, "probabilities": options.probabilities}
    kinds = [kind for kind, yes in wanted.items() if yes]
    for number, (path, prompts) in enumerate(pictures.items(), start=1):
        label, name = f"[{number}/{len(pictures)}] {path}", names[str(path)]
        points = [[*point, int(meant)] for point, meant in zip(prompts.points.tolist(), prompts.labels)]
        row = {"image": str(path), "boxes": prompts.boxes.tolist(), "points": points}
        files = {kind: out / kind / name for kind in kinds}
        if options.resume and (found := journal.finished([path], list(files.values()), row)) is not None:
            rows[str(path)] = {**row, **found}
            report(f"{label}: {files['masks']} is there")
            continue
        try:
            result = predictor.set_image(path).predict(prompts.boxes, points)
            result.save(files["masks"])
            if options.overlays:
                _write(files["overlays"], result.overlay())
            if options.probabilities:
                _write(files["probabilities"], np.rint(255 * result.probability).astype(np.uint8))
        except (ValueError, OSError) as error:
            failed[path] = str(error)
            rows[str(path)] = {**row, "error": str(error)}
            report(f"{label}: failed: {error}")
            continue
        found = result.statistics()
        rows[str(path)] = {**row, **found}
        journal.note([path], list(files.values()), row, **found)
        asked = counted(len(prompts.boxes), len(points)) or "no prompt"
        report(f"{label}: {asked}; {found['pixels']} pixels, {100 * found['share']:.1f} %")
    return failed


def counted(boxes: int, points: int) -> str:
    """'1 box, 2 points'; '' for none."""
    words = ((boxes, "box" if boxes == 1 else "boxes"), (points, "point" if points == 1 else "points"))
    return ", ".join(f"{number} {word}" for number, word in words if number)


def _write(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary)


def _read_statistics(out: Path) -> dict[str, dict]:
    """The rows of an earlier run by their picture; none where there is no table of ours."""
    try:
        return {row["image"]: row for row in json.loads((out / "statistics.json").read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _write_statistics(out: Path, rows: list[dict]) -> None:
    write_json(out / "statistics.json", rows)
    with atomic_path(out / "statistics.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: object) -> object:
    """Lists as numbers with spaces between, rows of lists with semicolons."""
    if not isinstance(value, list):
        return value
    if value and isinstance(value[0], list):
        return "; ".join(str(_cell(one)) for one in value)
    return " ".join(f"{one:g}" for one in value)
