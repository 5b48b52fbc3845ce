"""Reading checkpoint files without running what is in them.

A pickle may call any function it names. Only tensors, plain Python values and the harmless classes listed here are let
in; a file that names anything else is refused, and there is no second, unprotected try.
"""

import argparse
import pathlib
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mamba_vision.checkpoints.errors import CheckpointError

_STATISTICS = ("min", "max", "current", "mean")
# Configurations that trainers save beside the weights (VMamba's with yacs, ZigMa's with OmegaConf), and what they name.
_SETTINGS = (
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "mmengine.config.config.ConfigDict",
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")),
    "typing.Any",
    "collections.defaultdict",
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "str", "int", "float", "bool")),
)


def _history_method(owner: Any, name: str) -> Callable:
    """All that MMEngine's logs need of getattr: the four statistics of a HistoryBuffer."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(f"Unsupported global: GLOBAL builtins.getattr of {name!r} was not an allowed global")
    return getattr(HistoryBuffer, name)


class _Settings:
    """What stands in for a trainer's configuration: a plain dictionary; its own class is neither needed nor run."""

    def __new__(cls, *_: Any) -> OrderedDict:
        return OrderedDict()


def _numeric_dtype(code: str, *flags: bool) -> np.dtype:
    """numpy.dtype for numbers, booleans and text; object arrays stay out."""
    dtype = np.dtype(code)
    if dtype.hasobject:
        raise UnpicklingError("Unsupported global: GLOBAL numpy.dtype of objects was not an allowed global")
    return dtype


@cache
def _allowed() -> tuple:
    """What MMEngine, nnU-Net and image-classification trainers put beside the weights, by the names in their files."""
    allowed: list = [
        HistoryBuffer,
        argparse.Namespace,
        np.ndarray,
        slice,
        (_history_method, "builtins.getattr"),
        (_numeric_dtype, "numpy.dtype"),
        *(type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSU"),
    ]
    allowed += [(_Settings, name) for name in _SETTINGS]
    # NumPy 2 renamed numpy.core: files written by either version are read under either.
    rebuild, scalar = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    for package in ("numpy.core", "numpy._core"):
        allowed += [(rebuild, f"{package}.multiarray._reconstruct"), (scalar, f"{package}.multiarray.scalar")]
    # Paths among a trainer's arguments: as pure paths, which exist on every system and touch no disk.
    for name, pure in (("PosixPath", pathlib.PurePosixPath), ("WindowsPath", pathlib.PureWindowsPath)):
        allowed += [(pure, f"pathlib.{name}"), (pure, f"pathlib._local.{name}")]
    return tuple(allowed)


def load_file(path: str | Path, map_location: str | torch.device | None = "cpu") -> dict[str, Any]:
    """Read a checkpoint: .safetensors, or what torch.save wrote, weights-only.

    Args:
        path: The file, or an http(s) address, which is downloaded once into torch.hub's folder.
        map_location: Where tensors go.

    Returns:
        The dictionary in the file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is empty, truncated, no checkpoint, or names code that is not allowed.
    """
    file = _local(path)
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist" + (", it is a folder" if file.is_dir() else ""))
    with file.open("rb") as stream:
        head = stream.read(16)
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty")
    if file.suffix == ".safetensors":
        content = _load_safetensors(file, map_location)
    else:
        if head.startswith(b"PK") and not zipfile.is_zipfile(file):
            raise CheckpointError(f"checkpoint {path} is truncated: its end is missing; copy or download it again")
        content = load_stream(file, map_location)
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}, expected a dictionary of weights")
    return content


def load_stream(file: Any, map_location: Any = None) -> Any:
    """torch.load, weights-only, of a path or an open binary stream, with errors that name the file.

    Raises:
        CheckpointError: as in `load_file`.
    """
    name = getattr(file, "name", file) if not isinstance(file, (str, Path)) else file
    try:
        with torch.serialization.safe_globals(list(_allowed())):
            return torch.load(file, map_location=map_location, weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # A damaged file may break anything inside the reader, hence the breadth; nothing of the file has been run.
        raise CheckpointError(_explain(name, file, error)) from error


def _explain(name: Any, file: Any, error: Exception) -> str:
    """What is wrong with a file that the weights-only reader did not take."""
    text = str(error)
    found = re.search(r"GLOBAL (\S+)", text) or re.search(r"unrecognized function <[^>]*?([\w.]+)[^\w.]*>", text)
    if found:
        names = {found.group(1)}
        if isinstance(file, (str, Path)) and zipfile.is_zipfile(file):
            with torch.serialization.safe_globals(list(_allowed())):
                names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(str(file)))
        names = {full for full in names if not any(other.endswith("." + full) for other in names)}
        return (
            f"checkpoint {name} is refused: it asks for {', '.join(sorted(names))}, and whatever a file asks for could "
            "run code of its author. If you trust the file, save its plain state dict where it was made, and load that"
        )
    if "PytorchStreamReader" in text or isinstance(error, EOFError):
        return f"checkpoint {name} is truncated or damaged ({text.splitlines()[0] if text else 'it ends too early'})"
    # PyTorch's own text, whose first line tells people to load without protection, ends in what the reader met.
    lines = text.partition("WeightsUnpickler error:")[2].split("\n") if "Weights only" in text else text.splitlines()
    reason = next((line.strip()[:200] for line in lines if line.strip()), type(error).__name__)
    return f"{name} is not a checkpoint that torch.save wrote ({reason})"


def _load_safetensors(file: Path, map_location: Any) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_tensors

    try:
        return load_tensors(file, device="cpu" if map_location is None or callable(map_location) else str(map_location))
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {file} is truncated or no safetensors file ({error})") from error


def _local(path: str | Path) -> Path:
    """The file itself; for an address, its copy in torch.hub's folder, downloaded if it is not there."""
    address = urlparse(str(path))
    if address.scheme not in ("http", "https"):
        return Path(path).expanduser()
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(address.path).name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(str(path), str(target))
    return target
