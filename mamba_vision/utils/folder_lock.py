"""One process at a time at one kind of work in a folder.

The lock is the system's (POSIX record lock on a hidden file), so it ends with its process, killed or not, and processes
that were forked from it do not hold it. Where the system or the file system has no such locks there is none.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mamba_vision.utils.atomic import make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


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
    try:
        file = (folder / f".{work}.lock").open("a+")
    except OSError:  # a folder that can't be written to: whoever works in it will say so
        file = None
    if fcntl is None or file is None:
        yield
        return
    with file:
        _take(file, folder, work, wait)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # closing it lets go


def _take(file, folder: Path, work: str, wait: bool) -> None:
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
