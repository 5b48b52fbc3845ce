"""Files that appear whole or not at all: written under a temporary name beside the target, synced, then renamed."""

import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which replaces `path` when the block ends without an error.

    The temporary name begins with a dot and keeps the suffixes, because libraries choose the format by them. Missing
    parent folders are made. An error (or an interrupt) inside the block removes the temporary file and leaves what
    was at `path` before.

    Raises:
        FileNotFoundError: the block wrote no file.
        OSError: the folder cannot be made or written to; it names `path`, not the temporary file.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno and (error.filename is None or Path(str(error.filename)) == temporary):  # None: a full disk
            raise type(error)(error.errno, error.strerror, str(path)) from error
        if type(error) is OSError and not error.errno:  # NumPy's words for a full disk name no file
            raise OSError(f"{path}: {error}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: str | Path) -> Path:
    """Make a folder, and those above it, where they are missing, and return it.

    Raises:
        NotADirectoryError: a file is in its place.
        OSError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(f"{path}: found a file, expected a folder to write to") from None
    except OSError as error:
        raise type(error)(f"{path}: this folder cannot be made ({error.strerror})") from error
    return path


def writable_folder(path: str | Path) -> Path:
    """Make a folder as make_folder does, and see that files can be written to it: before long work, not after it.

    Raises:
        OSError: they cannot, the folder is read-only or its disk is full.
    """
    path = make_folder(path)
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        raise type(error)(f"{path}: no file can be written to this folder ({error.strerror})") from error
    return path


def remove_leftovers(folder: str | Path, pattern: str) -> None:
    """Delete what a killed process left under a temporary name in `folder`, for targets named like `pattern`.

    Only for a folder that no other process writes such files to.
    """
    for file in Path(folder).glob(f".*.{pattern}"):
        if re.match(r"\.[0-9a-f]{12}\.", file.name):
            file.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` (UTF-8) to `path` atomically and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON, lists of numbers on one line, to `path` atomically and return the path."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # A line break is never inside a JSON string, so a bracket followed by one is a list's.
    text = re.sub(
        r"\[\n[^\[\]{}\"]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text
    )
    return write_text(path, text + "\n")
