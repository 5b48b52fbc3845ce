"""Restoring many pictures: where each one is found and goes, in which format."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from mamba_vision.apis.picture_jobs import JOURNAL, Job, Journal, run_jobs, weights_hash
from mamba_vision.apis.restoration import restore_picture
from mamba_vision.models.tasks.restoration import ImageRestorer
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.utils.picture_files import (
    SUFFIXES,
    as_format_has_it,
    is_image,
    read_picture,
    write_picture,
)
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
        skip_existing: leave pictures whose result is there, whatever it was made with.
        resume: leave pictures that are finished with the same weights and options.
    """

    tiling: Tiling | None = None
    amp: bool = False
    suffix: str = ".png"
    quality: int = 95
    preview: bool = True
    skip_existing: bool = False
    resume: bool = False

    def of_results(self) -> dict[str, Any]:
        """Those that results depend on."""
        ours = ("preview", "skip_existing", "resume")
        return {name: value for name, value in asdict(self).items() if name not in ours}


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
            for file in sorted(filter(is_image, files)):
                if out is None or out.resolve() not in file.resolve().parents:
                    found[file] = file.relative_to(one)
        else:
            raise FileNotFoundError(f"{one}: no such file or folder")
    if not found:
        raise FileNotFoundError(f"no images ({', '.join(SUFFIXES)}) in {', '.join(map(str, inputs))}")
    return dict(zip(found, _distinct(list(found.values()))))


def _distinct(targets: Sequence[Path]) -> list[Path]:
    """Paths without suffixes, none of them twice: results would overwrite each other.

    The suffix goes into the names of those that differ in it only; those of several folders are numbered.
    """
    stems = Counter(target.with_suffix("") for target in set(targets))
    taken, names = set(), []
    for target in targets:
        stem = target.with_suffix("")
        name = base = stem if stems[stem] == 1 else target.with_name(target.name.replace(".", "_"))
        number = 1
        while name in taken:
            number += 1
            name = base.with_name(f"{base.name}_{number}")
        taken.add(name)
        names.append(name)
    return names


def tiling_of(
    model: nn.Module, tile: int | None = None, overlap: float | None = None, default: Tiling | None = None
) -> Tiling:
    """The model's tiling (else `default`, else the published one, blended) with what is given; tile 0: whole."""
    tiling = model.tiling or default or Tiling()
    given = {"tile": _NEVER if tile == 0 else tile, "overlap": overlap}
    return replace(tiling, **{name: value for name, value in given.items() if value is not None})


def restore_pictures(
    model: ImageRestorer, pictures: dict[Path, Path], out: Path, options: RestoreOptions, console: Console
) -> dict[Path, str]:
    """Restore every picture; one that fails is reported and does not stop the others.

    Args:
        pictures: what `collect_pictures` found.
        out: folder of the results, and of finished.jsonl, by which a later run resumes.

    Returns:
        Path to reason, of those that failed.
    """

    def job(source: Path, stem: Path) -> Job:
        target, preview = out / f"{stem}{options.suffix}", out / f"{stem}_before_after.png"

        def work(progress: Callable[[int, int], None]) -> str:
            before = read_picture(source)
            after = restore_picture(model, before, options.tiling, options.amp, progress)
            write_picture(target, as_format_has_it(after, options.suffix), options.quality)
            if options.preview:
                save_before_after(preview, before.color, after.color)
            return " to ".join(f"{p.color.shape[1]} x {p.color.shape[0]}" for p in (before, after))

        return Job((source,), target, work, (preview,) if options.preview else ())

    journal = Journal(out / JOURNAL, {"weights": weights_hash(model), "options": options.of_results()})
    jobs = [job(source, stem) for source, stem in pictures.items()]
    return run_jobs(jobs, console, options.skip_existing, journal, options.resume)
