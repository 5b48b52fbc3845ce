"""Published data sets in nnU-Net's raw layout: links to their files, or copies; whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from mamba_vision.volumes.label_scheme import read_label_scheme
from mamba_vision.volumes.volume import VolumeError, image_ending


@dataclass(frozen=True)
class Part:
    """One volume of a file that holds several along its fourth axis: a channel, or a point in time."""

    file: Path
    index: int


@dataclass(frozen=True)
class SourceCase:
    """One case as published: a file (or part of one) a channel, and its label; `test`: kept apart from training."""

    case: str
    images: tuple[Path | Part, ...]
    label: Path | None = None
    test: bool = False


@dataclass(frozen=True)
class RawDataset:
    """What dataset.json says; `labels` and `region_order` as nnU-Net's (see label_scheme)."""

    name: str
    channels: Sequence[str]
    labels: Mapping[str, int | Sequence[int]]
    region_order: Sequence[int] = ()
    reference: str = ""


def write_raw_dataset(
    out: str | Path,
    dataset: RawDataset,
    cases: Sequence[SourceCase],
    *,
    copy: bool = False,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Write imagesTr, labelsTr, imagesTs, labelsTs and dataset.json into the new folder `out`.

    Files are linked to where they are (absolute symbolic links), or copied where that is asked for or links are not
    allowed. Parts of files are written as files of their own, voxels and header unchanged.

    Args:
        out: must not exist, or be empty.
        copy: copy instead of linking.
        report: called with the name of each case before it is written.

    Raises:
        VolumeError: `out` holds something, no case, cases of one name, missing files (all of them are listed), files of
            several kinds, or a training case without label.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise VolumeError(out, "something there already", "a new folder", "Choose another one, or remove it")
    ending = _checked(out, dataset, cases)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        building.chmod(0o755)
        for one in cases:
            if report:
                report(one.case)
            kind = "Ts" if one.test else "Tr"
            for number, image in enumerate(one.images):
                _place(image, building / f"images{kind}" / f"{one.case}_{number:04d}{ending}", copy)
            if one.label is not None:
                _place(one.label, building / f"labels{kind}" / f"{one.case}{ending}", copy)
        content = {
            "name": dataset.name,
            "reference": dataset.reference,
            "channel_names": {str(number): name for number, name in enumerate(dataset.channels)},
            "labels": {name: list(value) if _is_region(value) else value for name, value in dataset.labels.items()},
            **({"regions_class_order": list(dataset.region_order)} if dataset.region_order else {}),
            "numTraining": sum(not one.test for one in cases),
            "file_ending": ending,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (building / "dataset.json").write_text(text, encoding="utf-8")
        if out.exists():
            out.rmdir()
        building.rename(out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return out


def require_folder(path: Path, *names: str, what: str) -> Path:
    """The first of the folders `names` in `path` (or `path` itself, for the name '.').

    Raises:
        VolumeError: none is there; the message says what was looked for.
    """
    if not path.is_dir():
        raise VolumeError(path, "no such folder", what)
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise VolumeError(path, f"no folder {' or '.join(names)}", what, "Is this the unpacked archive?")


def _checked(out: Path, dataset: RawDataset, cases: Sequence[SourceCase]) -> str:
    """The ending that all files share, once everything is known to be there."""
    if not any(not one.test for one in cases):
        raise VolumeError(out, f"{len(cases)} cases, none for training", "at least one case with a label")
    names = [one.case for one in cases]
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise VolumeError(out, f"two cases called {double}", "a name of its own for each case")
    read_label_scheme(dataset.labels, dataset.name, dataset.region_order)  # refuses what makes no sense
    unlabelled = [one.case for one in cases if one.label is None and not one.test]
    if unlabelled:
        raise VolumeError(out, f"no label of {', '.join(unlabelled[:5])}", "a label for every training case")
    wrong = next((one for one in cases if len(one.images) != len(dataset.channels)), None)
    if wrong:
        found = f"{len(wrong.images)} channels of {wrong.case}"
        raise VolumeError(out, found, f"{len(dataset.channels)} ({', '.join(dataset.channels)})")
    files = [*(_file(image) for one in cases for image in one.images), *(one.label for one in cases if one.label)]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise VolumeError(
            out, f"{len(missing)} files missing: {', '.join(missing[:10])}{more}", "every file of every case",
            "Is the download complete?",
        )  # fmt: skip
    endings = {image_ending(file) for file in files}
    if len(endings) != 1:
        raise VolumeError(out, f"files that end in {', '.join(sorted(endings))}", "files of one kind")
    return endings.pop()


def _place(source: Path | Part, target: Path, copy: bool) -> None:
    target.parent.mkdir(exist_ok=True)
    if isinstance(source, Part):
        _write_part(source, target)
        return
    if not copy:
        try:
            target.symlink_to(source.resolve())
            return
        except OSError:  # Windows without the right, or a file system without links
            pass
    shutil.copyfile(source, target)


def _write_part(part: Part, target: Path) -> None:
    image = nib.load(part.file)
    if len(image.shape) != 4 or not 0 <= part.index < image.shape[3]:
        sides = " x ".join(map(str, image.shape))
        raise VolumeError(part.file, f"an image of {sides}", f"a 4-D image of more than {part.index} volumes")
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    voxels = np.asanyarray(image.dataobj.get_unscaled())[..., part.index]
    header = image.header.copy()
    header.set_data_shape(voxels.shape)
    made = type(image)(voxels, None, header)
    made.header.set_slope_inter(slope, intercept)  # as stored: nothing is rounded once more
    nib.save(made, target)


def _file(image: Path | Part) -> Path:
    return image.file if isinstance(image, Part) else image


def _is_region(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
