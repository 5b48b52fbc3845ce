"""Restoring many pictures: where each goes, one that fails does not stop the others, progress."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mamba_vision.apis.restoration import restore_picture
from mamba_vision.datasets.restoration_images import (
    DEEP_SUFFIXES,
    SUFFIXES,
    Picture,
    read_picture,
    write_picture,
)
from mamba_vision.models.tasks.restoration import ImageRestorer
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.visualization.before_after import save_before_after

_NEVER = 2**30  # pixels: no picture is split


@dataclass(frozen=True)
class RestoreOptions:
    """What can be chosen for a run; see tools/restore.py --help.

    Attributes:
        tiling: how large pictures are split; None: as the model says, else as published with blended seams.
        amp: half precision.
        suffix: format of the results.
        quality: of JPEG and WebP.
        preview: also write NAME_before_after.png.
        skip_existing: leave pictures whose result is there.
    """

    tiling: Tiling | None = None
    amp: bool = False
    suffix: str = ".png"
    quality: int = 95
    preview: bool = True
    skip_existing: bool = False


def collect_pictures(
    inputs: Iterable[str | Path], recursive: bool = False, out: Path | None = None
) -> dict[Path, Path]:
    """The pictures to restore, with the path below the folder of results that each goes to, without a suffix.

    Args:
        inputs: files, and folders of which all images are taken.
        recursive: also from folders inside folders.
        out: a folder that is not searched.

    Raises:
        FileNotFoundError: an input does not exist, or there is no image in any of them.
    """
    found: dict[Path, Path] = {}
    for one in map(Path, inputs):
        if one.is_file():
            found[one] = Path(one.name)
        elif one.is_dir():
            files = one.rglob("*") if recursive else one.iterdir()
            for file in sorted(file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()):
                if out is None or out.resolve() not in file.resolve().parents:
                    found[file] = file.relative_to(one)
        else:
            raise FileNotFoundError(f"{one}: no such file or folder")
    if not found:
        raise FileNotFoundError(f"no images ({', '.join(SUFFIXES)}) in {', '.join(map(str, inputs))}")
    stems = [target.with_suffix("") for target in found.values()]
    # Two pictures that differ in the suffix only would overwrite each other: the suffix goes into the name.
    return {
        source: stem if stems.count(stem) == 1 else stem.with_name(target.name.replace(".", "_"))
        for (source, target), stem in zip(found.items(), stems)
    }


def tiling_of(model: ImageRestorer, tile: int | None = None, overlap: float | None = None) -> Tiling:
    """The model's tiling (else the published one, blended) with what is given; tile 0 splits no picture."""
    tiling = model.tiling or Tiling()
    given = {"tile": _NEVER if tile == 0 else tile, "overlap": overlap}
    return replace(tiling, **{name: value for name, value in given.items() if value is not None})


def restore_pictures(
    model: ImageRestorer, pictures: dict[Path, Path], out: Path, options: RestoreOptions, console: Console
) -> dict[Path, str]:
    """Restore every picture; one that fails is reported and does not stop the others.

    Args:
        pictures: what `collect_pictures` found.
        out: folder of the results.

    Returns:
        Path to reason, of those that failed.
    """
    failures: dict[Path, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        everything = bars.add_task("pictures", total=len(pictures), visible=len(pictures) > 1)
        for number, (source, stem) in enumerate(pictures.items(), start=1):
            label, target = f"[{number}/{len(pictures)}] {source}", out / f"{stem}{options.suffix}"
            if options.skip_existing and target.is_file():
                console.print(f"{label}: {target} is there", markup=False)
                bars.advance(everything)
                continue
            task = bars.add_task(source.name, total=None)
            start = time.perf_counter()
            try:
                if target.resolve() == source.resolve():
                    raise ValueError(f"{source}: the result would overwrite it; choose another folder with --out")
                before = read_picture(source)
                after = restore_picture(
                    model, before, options.tiling, options.amp,
                    lambda done, total, task=task: bars.update(task, completed=done, total=total),
                )  # fmt: skip
                write_picture(target, _as_format_has_it(after, options.suffix), options.quality)
                if options.preview:
                    save_before_after(out / f"{stem}_before_after.png", before.color, after.color)
            except Exception as error:  # whatever it is: the other pictures are still to be restored
                failures[source] = _explain(error)
                console.print(f"{label}: failed: {failures[source]}", markup=False, style="red")
            else:
                sizes = [f"{p.color.shape[1]} x {p.color.shape[0]}" for p in (before, after)]
                seconds = time.perf_counter() - start
                console.print(f"{label}: {sizes[0]} to {sizes[1]}, {target} ({seconds:.1f} s)", markup=False)
            bars.remove_task(task)
            bars.advance(everything)
    return failures


def _as_format_has_it(picture: Picture, suffix: str) -> Picture:
    """Without the depth that the format has no room for. (Transparency is not given up: writing says what is wrong.)"""
    return replace(picture, bits=8) if picture.bits > 8 and suffix not in DEEP_SUFFIXES else picture


def _explain(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "too little memory: try a smaller --tile"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"
