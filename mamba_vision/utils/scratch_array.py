"""Large arrays of sums that may be beyond main memory: in memory, or in a nameless file that goes when it is closed."""

import contextlib
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mamba_vision.utils.memory import available_memory, format_size


class ScratchArray:
    """Zeros (K, S0, ...) float32.

    Attributes:
        array: the numbers, writable; must not be used once this is closed.
        where: what was chosen, in words.
    """

    def __init__(self, shape: Sequence[int], folder: str | Path | None) -> None:
        """`folder`: of the file; None keeps the numbers in memory.

        Raises:
            OSError: the folder has not enough room.
        """
        self._map = self._file = None
        size = math.prod(shape) * 4
        if folder is None:
            self.array = np.zeros(shape, np.float32)
            self.where = f"{format_size(size)} of logits in memory"
            return
        free = shutil.disk_usage(folder).free
        if free < size:
            raise OSError(f"{folder}: {format_size(size)} are needed for the logits, {format_size(free)} are free")
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by close)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a crash while writing
            os.posix_fallocate(self._file.fileno(), 0, size)
        else:
            self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size)
        first, rows, *plane = shape
        # Rows come first in the file: what is finished is then one stretch, which `release` can give back.
        self._row_size = size // rows
        self.array = np.moveaxis(np.frombuffer(self._map, np.float32).reshape(rows, first, *plane), 1, 0)
        self.where = f"{format_size(size)} of logits in a temporary file in {folder}"

    def release(self, rows: int) -> None:
        """The first `rows` rows of axis S0 are not needed soon: their memory, not what is there, goes to the system."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            length = rows * self._row_size // mmap.PAGESIZE * mmap.PAGESIZE
            if length:
                self._map.madvise(mmap.MADV_DONTNEED, 0, length)

    def close(self) -> None:
        """Give memory and file back."""
        self.array = None
        if self._map is not None:
            with contextlib.suppress(BufferError):  # somebody still holds a view: it goes with that
                self._map.close()
            self._file.close()

    def __enter__(self) -> "ScratchArray":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def choose_scratch(shape: Sequence[int], max_memory: int | None, folder: str | Path | None) -> str | Path | None:
    """The folder for an array of this shape; None if it fits into `max_memory` (default: half of what is free)."""
    fits = 4 * math.prod(shape) <= (max_memory or available_memory() // 2)
    return None if fits else folder or tempfile.gettempdir()
