"""What a model file says of itself, checked before it is used, and the seal that MODEL.json beside it holds."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "mamba_vision"  # of our metadata in the file
VERBS = {
    "classification": "classify", "segmentation": "segment", "volume_segmentation": "segment",
    "restoration": "restore", "fusion": "fuse", "sharpening": "fuse", "promptable": "prompt",
}  # of the command line  # fmt: skip
_NUMBERS, _WRITER = (int, float), "mamba_vision"
_PICTURE = {"preprocess": dict}
_NEEDED: dict[str, dict[str, Any]] = {
    "classification": _PICTURE, "segmentation": _PICTURE, "promptable": _PICTURE, "fusion": {"channels": int},
    "restoration": {"channels": int, "scale": int},
    "sharpening": {"bands": int, "guide_channels": int, "scale": int, "peak": _NUMBERS},
}  # a plan of scans checks itself  # fmt: skip
_OPTIONAL = {"labels": (list, dict), "window": dict, "tiling": dict, "postprocessing": list, "palette": list}
_PREPROCESS = {"mean": (list, type(None)), "std": (list, type(None)), "rgb": bool, "steps": list}


class ModelFileError(ValueError):
    """A model file that cannot be used; the message names it, what was found and what was expected."""


def read_info(path: Path, found: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a file, from all that the file has.

    Raises:
        ModelFileError: there is none, or it lacks something, or has something else in its place.
    """
    if KEY not in found:
        raise ModelFileError(f"{path}: expected a model from tools/export_onnx.py, found one without its metadata")
    try:
        info = json.loads(found[KEY])
        good = isinstance(info, dict) and info.get("format") == 1 and info.get("task") in VERBS
    except (ValueError, TypeError, RecursionError):
        good = False
    if not good:
        raise ModelFileError(f"{path}: metadata that this version does not understand")
    _check_entries(path, info, _NEEDED.get(info["task"], {}), "metadata")
    _check_entries(path, {k: v for k, v in info.items() if v is not None}, _OPTIONAL, "metadata", needed=False)
    if "preprocess" in _NEEDED.get(info["task"], {}):
        steps = info["preprocess"]
        _check_entries(path, steps, {"mean": _PREPROCESS["mean"], "rgb": bool}, "metadata: preprocess")
        _check_entries(path, steps, _PREPROCESS, "metadata: preprocess", needed=False)
        if steps["mean"] is not None and not isinstance(steps.get("std"), list):
            raise ModelFileError(f"{path}: metadata: preprocess has a mean but no std")
    return info


def check_seal(path: Path, content: bytes) -> None:
    """Refuse a model that is not the one MODEL.json beside it describes; other files of that name are let alone.

    Raises:
        ModelFileError: another model, or one that was changed, or a description that is cut off.
    """
    beside = path.with_suffix(".json")
    try:
        text = beside.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    if not text.lstrip().startswith('{\n  "written_by": "' + _WRITER):
        return
    cure = "export again, or remove the .json"
    try:
        record = json.loads(text)
        sealed = record["sha256"]
    except ValueError as error:
        raise ModelFileError(f"{beside}: no whole description of {path.name} ({error}); {cure}") from error
    except KeyError as error:
        raise ModelFileError(f"{beside}: no sha256, expected the description of {path.name}; {cure}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sealed:
        raise ModelFileError(
            f"{path}: not the model that {beside.name} describes, SHA-256 {digest[:12]}..., expected "
            f"{str(sealed)[:12]}...; the file was changed or damaged, or the .json is of another; {cure}"
        )


def number(info: Mapping[str, Any], name: str, least: float, most: float) -> int | float:
    """A number of the metadata, within bounds.

    Raises:
        ModelFileError: it is none, or out of bounds.
    """
    value = info.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ModelFileError(f"metadata: {name} is {value!r}, expected a number from {least:g} to {most:g}")
    return value


def _check_entries(path: Path, info: Mapping[str, Any], kinds: Mapping[str, Any], place: str, needed: bool = True):
    missing = [name for name in kinds if name not in info]
    if missing and needed:
        raise ModelFileError(f"{path}: {place} without {', '.join(missing)}; expected what tools/export_onnx.py writes")
    for name, kind in kinds.items():
        if name in info and not isinstance(info[name], kind):
            one = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join("none" if each is type(None) else each.__name__ for each in one)
            raise ModelFileError(f"{path}: {place}: {name} is {str(info[name])[:60]!r}, expected a {expected}")
