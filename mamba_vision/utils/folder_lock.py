"""One process at a time at one kind of work in a folder.

The lock is the system's (POSIX record lock on a hidden file), so it ends with its process, killed or not, and processes
that were forked from it do not hold it; the file stays behind only where its process is killed. Where the system or the
file system has no such locks there is none.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from mamba_vision.utils.atomic import make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SEGMENTATION = "segmentation"  # whose run.json and tables all runs into a folder bring up to date


@contextmanager
def folder_lock(folder: str | Path, work: str, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for `work` (a word, e.g. 'training') while the block runs.

    Args:
        folder: made if missing.
        work: what this is about; processes at other work are not kept out.
        wait: for a process that holds it, saying so once; otherwise that is an error.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be made.
    """
    folder = make_folder(folder)
    path = folder / f".{work}.lock"
    try:
        file = None if fcntl is None else _held(path, folder, work, wait)
    except BlockingIOError:
        raise
    except OSError:  # a folder that can't be written to: whoever works in it will say so
        file = None
    if file is None:
        yield
        return
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()  # while it is held; closing it lets go


def _held(path: Path, folder: Path, work: str, wait: bool) -> TextIO:
    """The lock's file, held, and the one that lies there: a holder that ends takes its own away."""
    while True:
        file = path.open("a+")
        try:
            _take(file, folder, work, wait)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _take(file: TextIO, folder: Path, work: str, wait: bool) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # either, by POSIX, where another process has it
        file.seek(0)
        holder = file.read() or "another process"
        if not wait:
            raise BlockingIOError(
                f"{folder}: found {holder} at work here ({work}), expected one {work} at a time in a folder"
            ) from None
        print(f"{folder}: waiting for {holder} ({work})", file=sys.stderr, flush=True)
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
