"""Lists of scans in a file: CSV, or JSON in the forms of the Decathlon, MONAI, nnU-Net and plain records.

    CSV     columns image[, image2 ...][, label][, fold][, case]; others are passed over
    JSON    [{"image": PATH or [PATHS], "label": PATH, "fold": 0, "case": NAME}, ...]
            {"training": [records], "validation": [records], "test" or "testing": [records or paths]}
            {"dataset": {CASE: {"images": [PATHS], "label": PATH}}}

Paths are relative to the file. `fold` is a number, 'train' (in every fold's training) or 'test' (kept apart).
"""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamba_vision.volumes.scan_files import TEST, ScanFiles
from mamba_vision.volumes.volume import VolumeError, stem

_TABLES = (".csv", ".tsv", ".json")
_SECTIONS = {"training": "", "train": "", "validation": "0", "val": "0", "test": TEST, "testing": TEST}
_FORMS = "a list of records with image and label, or training, test or dataset with such"


def is_table(path: Path) -> bool:
    """Whether the path is a file that may list scans."""
    return path.is_file() and path.suffix.lower() in _TABLES


def read_table(path: Path) -> list[ScanFiles]:
    """Every case of the list, sorted by name. Whether the files exist is said when they are read.

    Raises:
        VolumeError: no such list, a row without an image, a fold that is none, or two cases of one name.
    """
    scans = _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path)
    if not scans:
        raise VolumeError(path, "no scan in it", "a row a case")
    seen: dict[str, ScanFiles] = {}
    for scan in scans:
        if scan.case in seen:
            raise VolumeError(
                path, f"two cases called {scan.case} ({scan.images[0]}, {seen[scan.case].images[0]})",
                "a name of its own for each", "Add a column (or key) `case`",
            )  # fmt: skip
        seen[scan.case] = scan
    return [seen[case] for case in sorted(seen)]


def listed_in(folder: Path) -> list[ScanFiles]:
    """The cases that the folder's dataset.json lists, as the Decathlon's do; empty if it lists none that are there.

    nnU-Net's older files list names without their channels' numbers; then the folder's own files count.
    """
    file = folder / "dataset.json"
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # read_dataset_info says what is wrong with it
    if not isinstance(content, dict) or not any(
        isinstance(content.get(key), list | dict) for key in ("training", "dataset")
    ):
        return []
    scans = read_table(file)
    return scans if any(scan.images[0].exists() for scan in scans) else []


def _from_csv(path: Path) -> list[ScanFiles]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            head = opened.readline()
            opened.seek(0)
            delimiter = max(",;\t", key=head.count)
            rows = list(csv.DictReader(opened, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise VolumeError(path, f"no table ({e})", "a CSV file in UTF-8") from e
    columns = [column.strip() for column in head.strip().split(delimiter)]
    images = [column for column in columns if re.fullmatch(r"image[_ ]?\d*", column.strip('"').lower())]
    if not images:
        raise VolumeError(
            path, f"the columns {', '.join(columns)}", "image (and image2 ...), label, perhaps fold, case"
        )
    scans = []
    for number, row in enumerate(rows, 2):
        record = {str(key).strip().lower(): (value or "").strip() for key, value in row.items() if key is not None}
        record["image"] = [record[name.strip('"').lower()] for name in images]
        while record["image"] and not record["image"][-1]:
            record["image"].pop()  # a case with fewer channels; what that means is said with all other problems
        scans.append(_scan(path, record, f"line {number}"))
    return scans


def _from_json(path: Path) -> list[ScanFiles]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise VolumeError(path, f"no JSON ({e})", _FORMS) from e
    stacked = isinstance(content, dict) and len(content.get("channel_names", content.get("modality", ()))) > 1
    if isinstance(content, dict) and isinstance(content.get("dataset"), dict):
        content = [{**entry, "case": name, "image": entry.get("images")} for name, entry in content["dataset"].items()]
    sections = {"": content} if isinstance(content, list) else content
    if not isinstance(sections, dict):
        raise VolumeError(path, f"a {type(content).__name__}", _FORMS)
    scans = []
    for section, records in sections.items():
        if section in ("", *_SECTIONS) and isinstance(records, list):
            for number, record in enumerate(records, 1):
                entry = record if isinstance(record, Mapping) else {"image": record}
                place = f"{section} entry {number}".strip()
                scans.append(_scan(path, {"fold": _SECTIONS.get(section, ""), **entry}, place, stacked))
    if not scans:
        raise VolumeError(path, f"the keys {', '.join(sections)}", _FORMS)
    return scans


def _scan(table: Path, record: Mapping[str, Any], place: str, stacked: bool = False) -> ScanFiles:
    images = record.get("image")
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images or not all(isinstance(one, str) and one for one in images):
        raise VolumeError(table, f"{place}: image = {record.get('image')!r}", "the path of an image, or several")
    fold = str(record.get("fold") if record.get("fold") is not None else "").strip().lower()
    fold = "" if fold == "train" else fold.removesuffix(".0")  # spreadsheets turn whole numbers with gaps into decimals
    if fold not in ("", TEST) and not fold.isdigit():
        raise VolumeError(table, f"{place}: fold = {record['fold']!r}", "a number, train or test")
    folder = table.parent.resolve()
    paths = tuple(folder / one for one in images)  # links are not followed: their names are the cases' names
    label = record.get("label") or None
    case = str(record.get("case") or stem(paths[0]).removesuffix("_0000"))
    return ScanFiles(case, paths, folder / str(label) if label else None, None, stacked and len(paths) == 1, fold)
