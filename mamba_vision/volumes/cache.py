"""Prepared cases on disk: whole or not at all, and reused while nothing that they rest on has changed.

CASE/image.npy         (C, *S) float32
CASE/label.npy         (*S) int16 class numbers, see preprocess.Case; absent without a label
CASE/foreground.npz    '1', '2', ...: (n, 3) int32, voxels of each class to centre patches on; 'region_1', ...: of each
                       region, where there are some; 'annotated': of all that is not ignored, where some is
CASE/case.json         spacing, geometry, hashes of plan and files; written last: a case without it is not there
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from rich.console import Console

from mamba_vision.utils.atomic import atomic_path, write_json
from mamba_vision.utils.folder_lock import folder_lock
from mamba_vision.volumes.dicom import is_dicom_file
from mamba_vision.volumes.dicom_labels import label_file
from mamba_vision.volumes.itk_files import is_itk_file, itk_header
from mamba_vision.volumes.orientation import Geometry
from mamba_vision.volumes.parallel import default_workers, for_each
from mamba_vision.volumes.pictures import picture_ending, picture_shape
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.preprocess import Case, preprocess
from mamba_vision.volumes.scan_files import ScanFiles, read_scan, read_scan_label
from mamba_vision.volumes.volume import VolumeError

_FORMAT = 2
_PREPARING = (  # fields of the plan
    "channels", "labels", "axes", "spacing", "normalization", "use_mask", "intensities", "fix_geometry", "regions",
    "ignore_label",
)  # fmt: skip
ANNOTATED = "annotated"
REGION = "region_{}"
_LOCATIONS = 10_000  # voxels kept a class ...
_LOCATION_SHARE = 0.01  # ... or this share of them, if that is more
_LOCATION_SEED = 1234
_BYTES_A_VOXEL = 40  # peak of reading and preparing, a voxel and channel of the scan


@dataclass(frozen=True)
class CachedCase:
    """A prepared case on disk. Arrays are memory-mapped, read-only: a patch costs what a patch holds."""

    folder: Path  # of this case

    @property
    def case(self) -> str:
        """Its name."""
        return self.folder.name

    @cached_property
    def record(self) -> dict:
        """What case.json says."""
        return json.loads((self.folder / "case.json").read_text(encoding="utf-8"))

    @property
    def geometry(self) -> Geometry:
        """The way back to the scan."""
        return Geometry.from_dict(self.record["geometry"])

    @property
    def sources(self) -> list[Path]:
        """The files of the scan, one a channel, as they were when it was prepared."""
        return [Path(path) for path in self.record["images"]]

    @property
    def label_source(self) -> Path | None:
        """The label file, as it was when the case was prepared."""
        return Path(self.record["label"]) if self.record["label"] else None

    @property
    def image(self) -> np.ndarray:
        """(C, *S) float32."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @property
    def label(self) -> np.ndarray | None:
        """(*S) int16, or None."""
        return np.load(self.folder / "label.npy", mmap_mode="r") if self.record["label"] else None

    @cached_property
    def foreground(self) -> dict[int, np.ndarray]:
        """Class -> (n, 3) voxels of it, for the classes above 0 that occur."""
        with np.load(self.folder / "foreground.npz") as stored:
            return {int(key): stored[key] for key in sorted(filter(str.isdigit, stored.files), key=int)}


def build_cache(
    scans: Sequence[ScanFiles],
    plan: Plan,
    folder: str | Path,
    workers: int | None = None,
    progress: bool = False,
    console: Console | None = None,
) -> list[CachedCase]:
    """Prepare what is not prepared yet.

    A case is reused if its JSON names the same preparation (the plan's channels, labels, axes, spacing, normalization
    and cure of geometry; not the patch) and the same files with the same content. Content is compared by size and time
    of change, and by SHA-256 where the times differ. Of several processes one prepares, the others wait for it.

    Args:
        scans: with or without labels.
        plan: of the data set.
        folder: made if missing.
        workers: cases at once; by default a core each, as far as free memory goes.
        progress: draw a bar.

    Raises:
        VolumeError: of the first case that cannot be read; those done stay done.
    """
    folder = Path(folder)
    preparation = plan_hash(plan)

    def missing() -> list[ScanFiles]:
        return [scan for scan in scans if not _is_current(folder / scan.case, scan, preparation)]

    if missing():
        with folder_lock(folder, "preparing", wait=True):  # folds that start together share this folder
            left = missing()
            workers = workers or default_workers(_peak_bytes(scan, plan) for scan in left)
            for_each(
                lambda scan: _prepare(folder / scan.case, scan, plan, preparation),
                left, workers=workers, title="Preparing scans", progress=progress, console=console,
            )  # fmt: skip
    return [CachedCase(folder / scan.case) for scan in scans]


def load_case(folder: str | Path, case: str) -> CachedCase:
    """A case that build_cache has made.

    Raises:
        VolumeError: it is not there.
    """
    found = CachedCase(Path(folder) / case)
    if not (found.folder / "case.json").is_file():
        raise VolumeError(found.folder, "no such prepared case", "one that build_cache made")
    return found


def plan_hash(plan: Plan) -> str:
    """Of all that preparing a case depends on; the patch, batch and network may change without a new preparation."""
    content = plan.to_dict()
    text = json.dumps([_FORMAT, plan.slicewise, {name: content[name] for name in _PREPARING}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def foreground_locations(label: np.ndarray, classes: int) -> dict[int, np.ndarray]:
    """Class -> (n, 3) int32 voxels drawn without replacement: at most 10000 or 1 % of the class, as nnU-Net."""
    random = np.random.RandomState(_LOCATION_SEED)
    found = {number: _draw(label == number, random) for number in range(1, classes)}
    return {number: places for number, places in found.items() if len(places)}


def region_locations(label: np.ndarray, plan: Plan) -> dict[str, np.ndarray]:
    """Such voxels of each region that occurs, and of what is annotated if not all is."""
    random = np.random.RandomState(_LOCATION_SEED)
    masks = {
        REGION.format(number): np.isin(label, classes)
        for number, classes in enumerate(plan.region_classes.values(), start=1)
    }
    if plan.ignore_class is not None:
        masks[ANNOTATED] = label != plan.ignore_class
    found = {name: _draw(mask, random) for name, mask in masks.items()}
    return {name: places for name, places in found.items() if len(places)}


def _draw(mask: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    found = np.flatnonzero(mask)
    count = max(min(_LOCATIONS, found.size), int(np.ceil(found.size * _LOCATION_SHARE)))
    chosen = found[random.choice(found.size, count, replace=False)] if count else found
    return np.stack(np.unravel_index(chosen, mask.shape), axis=1).astype(np.int32)


def _prepare(folder: Path, scan: ScanFiles, plan: Plan, preparation: str) -> None:
    (folder / "case.json").unlink(missing_ok=True)  # from here on the old case is no longer there
    sources = _sources(scan, with_hash=True)
    volume = read_scan(scan, plan.fix_geometry)
    label = read_scan_label(scan, volume, plan.fix_geometry, plan.labels)
    case: Case = preprocess(volume, plan, label)
    _save(folder / "image.npy", case.image)
    if case.label is not None:
        _save(folder / "label.npy", case.label)
        locations = foreground_locations(case.label, plan.num_classes)
        with atomic_path(folder / "foreground.npz") as temporary:
            named = {str(number): voxels for number, voxels in locations.items()}
            np.savez(temporary, **named, **region_locations(case.label, plan))
    write_json(
        folder / "case.json",
        {
            "format": _FORMAT,
            "case": scan.case,
            "spacing": list(plan.spacing_for(case.geometry.spacing)),
            "images": [str(path.resolve()) for path in scan.images],
            "label": str(scan.label.resolve()) if scan.label else None,
            "series": scan.series,
            "preparation": preparation,
            "sources": sources,
            "geometry": case.geometry.to_dict(),
        },
    )


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, array)


def _is_current(folder: Path, scan: ScanFiles, preparation: str) -> bool:
    try:
        record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    expected = {"format": _FORMAT, "preparation": preparation, "series": scan.series}
    if any(record.get(key) != value for key, value in expected.items()):
        return False
    endings = ("image.npy", "label.npy", "foreground.npz") if scan.label else ("image.npy",)
    if not all((folder / ending).is_file() for ending in endings):
        return False
    return _same_content(record.get("sources"), scan)


def _same_content(recorded: list[Mapping] | None, scan: ScanFiles) -> bool:
    now = _sources(scan, with_hash=False)
    if not isinstance(recorded, list) or len(recorded) != len(now):
        return False
    for old, new in zip(recorded, now):
        if old.get("name") != new["name"] or old.get("size") != new["size"]:
            return False
        if old.get("changed") != new["changed"] and old.get("sha256") != _sha256(Path(new["path"])):
            return False
    return True


def _sources(scan: ScanFiles, with_hash: bool) -> list[dict]:
    """Every file the case is read from: name, size, time of change, and its hash."""
    files: list[Path] = []
    for path in (*scan.images, *([label_file(scan.label)] if scan.label else [])):
        if path.is_dir():
            files += sorted(entry for entry in path.rglob("*") if entry.is_file() and is_dicom_file(entry))
        else:
            files.append(path)
            if path.suffix == ".mhd":  # a header; the voxels lie beside it
                files += sorted(entry for entry in path.parent.glob(f"{path.stem}.*raw") if entry.is_file())
    entries = []
    for file in files:
        if not file.is_file():
            raise VolumeError(file, "no such file", "an image file or a DICOM folder")
        status = file.stat()
        entry = {"name": file.name, "path": str(file), "size": status.st_size, "changed": status.st_mtime_ns}
        entries.append({**entry, "sha256": _sha256(file)} if with_hash else entry)
    return entries


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _peak_bytes(scan: ScanFiles, plan: Plan) -> int:
    return estimated_voxels(scan) * len(plan.channels) * _BYTES_A_VOXEL


def estimated_voxels(scan: ScanFiles) -> int:
    """Voxels of one channel, from the header; for DICOM, from the size of its files. 0 if unreadable."""
    path = scan.images[0]
    try:
        if path.is_dir():
            return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file()) // 2
        if picture_ending(path):
            return int(np.prod(picture_shape(path), dtype=np.int64)) // len(scan.images)
        shape = itk_header(path)[1].GetSize() if is_itk_file(path) else nib.load(path).shape
        return int(np.prod(shape[:3], dtype=np.int64))
    except Exception:  # what is wrong with it is said when it is read
        return 0
