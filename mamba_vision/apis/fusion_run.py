"""Fusing files of any kind, one pair or whole folders: pictures, GeoTIFFs, volumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from mamba_vision.apis.fusion import Fusing, Progress, fuse_pictures
from mamba_vision.apis.fusion_rasters import fuse_rasters, raster_preview
from mamba_vision.apis.fusion_volumes import Window, fuse_volumes, volume_preview
from mamba_vision.apis.picture_jobs import JOURNAL, Job, Journal, run_jobs, weights_hash
from mamba_vision.apis.restoration_run import RestoreOptions
from mamba_vision.datasets.fusion_pairs import pair_by_name
from mamba_vision.models.tasks.fusion_sharpening import ImageSharpener
from mamba_vision.utils.picture_files import SUFFIXES, WRITTEN, as_format_has_it, read_picture, write_picture
from mamba_vision.utils.rasters import RASTER_SUFFIXES, is_raster
from mamba_vision.visualization.before_after import as_color, save_comparison
from mamba_vision.volumes.reading import is_nifti

ENDINGS = (".nii.gz", ".nii", *dict.fromkeys((*SUFFIXES, *RASTER_SUFFIXES)))
_VOLUME, _RASTER, _PICTURE = "volume", "raster", "picture"


@dataclass(frozen=True)
class FuseOptions(RestoreOptions):
    """What can be chosen for a run besides `RestoreOptions`; see tools/fuse.py --help.

    Attributes:
        peak: of GeoTIFFs, counts that 1 stands for; None: as the model was trained.
        plane, windows: of volumes, see `fuse_volumes`.
    """

    peak: float | None = None
    plane: str = "axial"
    windows: tuple[Window | None, Window | None] = (None, None)


@dataclass(frozen=True)
class Pair:
    """Two files that become one."""

    first: Path
    second: Path
    target: Path


def collect_pairs(first: str | Path, second: str | Path, out: str | Path, suffix: str = ".png") -> list[Pair]:
    """What there is to fuse: the pair itself, or the files of two folders that share a name.

    Args:
        out: the result's file (if its ending is one that can be written), else the folder of results, which take the
            first file's name.
        suffix: of pictures in a folder of results; volumes become .nii.gz, georeferenced files .tif.

    Raises:
        FileNotFoundError: nothing is there, or a file has no partner.
        ValueError: a file and a folder, or a file as `out` for folders.
    """
    first, second, out = Path(first), Path(second), Path(out)
    for path in (first, second):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    is_file = out.name.lower().endswith((".nii", ".nii.gz", *WRITTEN)) and not out.is_dir()
    folders = first.is_dir() and second.is_dir() and not (_slices(first) and _slices(second))
    if folders:
        if is_file:
            raise ValueError(f"{out}: expected a folder for the results of folders")
        pairs = pair_by_name(first, second, ENDINGS)
    elif first.is_dir() != second.is_dir() and not any(map(_slices, (first, second))):
        raise ValueError(f"{first} and {second}: expected two files, or two folders")
    else:
        pairs = [(first, second)]
    if is_file:
        return [Pair(first, second, out)]
    return [Pair(one, two, out / f"{_stem(one)}{_ending(kind_of(one, two), suffix)}") for one, two in pairs]


def kind_of(first: Path, second: Path) -> str:
    """'volume', 'raster' or 'picture': what the more special one of two files is."""
    if any(is_nifti(path) or path.is_dir() for path in (first, second)):
        return _VOLUME
    return _RASTER if is_raster(first) or is_raster(second) else _PICTURE


def fuse_files(
    model: Fusing, first: str | Path, second: str | Path, out: str | Path, options: FuseOptions | None = None,
    progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Two files of one kind to a third: pictures, GeoTIFFs, or volumes (NIfTI, DICOM folders).

    Args:
        model: of `init_fuser`.
        first, second: see `fuse_pictures`, `fuse_rasters` and `fuse_volumes`.
        out: the result, written atomically, and beside it NAME_before_after.png.
        options: default: `FuseOptions()`.
        progress: called with steps done and all steps.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file that cannot be read, or two that do not go together or with the model.
    """
    first, second, out, options = Path(first), Path(second), Path(out), options or FuseOptions()
    for path in (first, second):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
    kind = kind_of(first, second)
    if kind == _VOLUME:
        fuse_volumes(model, first, second, out, options.plane, options.windows, options.tiling, options.amp, progress)
        shown = [volume_preview(path, options.plane, window)
                 for path, window in zip((first, second, out), (*options.windows, (0.0, 1.0)))]  # fmt: skip
    elif kind == _RASTER:
        fuse_rasters(model, first, second, out, options.peak, options.tiling, options.amp, progress)
        shown = [raster_preview(path) for path in (first, second, out)]
    else:
        pictures = [read_picture(path) for path in (first, second)]
        try:
            fused = fuse_pictures(model, *pictures, options.tiling, options.amp, progress)
        except ValueError as error:
            raise ValueError(f"{first} and {second}: {error}") from error
        write_picture(out, as_format_has_it(fused, out.suffix.lower()), options.quality)
        shown = [picture.color for picture in (*pictures, fused)]
    if options.preview:
        _save_preview(model, out, shown)
    return out


def fuse_pairs(
    model: Fusing, pairs: Sequence[Pair], options: FuseOptions, console: Console, folder: Path | None = None
) -> dict[Path, str]:
    """Fuse every pair; one that fails is reported and does not stop the others.

    Args:
        folder: of the results, where finished.jsonl is kept, by which a later run resumes; None: none is kept.

    Returns:
        First file to reason, of those that failed.
    """

    def job(pair: Pair) -> Job:
        def work(progress: Progress) -> str:
            fuse_files(model, pair.first, pair.second, pair.target, options, progress)
            return f"and {pair.second.name} fused"

        extras = (_preview_of(pair.target),) if options.preview else ()
        return Job((pair.first, pair.second), pair.target, work, extras)

    journal = None
    if folder is not None:
        journal = Journal(folder / JOURNAL, {"weights": weights_hash(model), "options": options.of_results()})
    return run_jobs([job(pair) for pair in pairs], console, options.skip_existing, journal, options.resume)


def _save_preview(model: Fusing, out: Path, shown: Sequence[np.ndarray]) -> None:
    names = ("image", "guide", "sharpened") if isinstance(model, ImageSharpener) else ("first", "second", "fused")
    save_comparison(_preview_of(out), dict(zip(names, map(as_color, shown))))


def _preview_of(out: Path) -> Path:
    return out.with_name(f"{_stem(out)}_before_after.png")


def _stem(path: Path) -> str:
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)]


def _ending(kind: str, suffix: str) -> str:
    return {_VOLUME: ".nii.gz", _RASTER: ".tif"}.get(kind, suffix)


def _slices(folder: Path) -> bool:
    """Whether a folder is one scan, of DICOM slices, and not many images."""
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    return bool(files) and not any(path.name.lower().endswith(ENDINGS) for path in files)
