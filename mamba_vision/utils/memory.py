"""How much memory there is, how much was used, and sizes as people write them."""

import contextlib
import re
import sys
from pathlib import Path

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str | int) -> int:
    """Bytes of a size such as `8G`, `512M`, `1.5 GiB` or a plain number of bytes; units are powers of 1024.

    Raises:
        ValueError: no such size, or not above zero.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(text), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size <= 0:
        raise ValueError(f"expected a size such as 8G or 512M, found {text!r}")
    return size


def format_size(size: int | float) -> str:
    """`1.5 GiB` for a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def available_memory() -> int:
    """Bytes of main memory that this process may still take: of the machine, and of its container where it is less."""
    found = [*_machine(), *_container()]
    return max(min(found), 0) if found else 4 * 2**30


def peak_memory() -> int:
    """The most bytes of main memory that this process has held so far; 0 where the system does not tell."""
    with contextlib.suppress(OSError, TypeError):  # getrusage also knows of the process that began this one
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _machine() -> list[int]:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return [int(re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024]
    with contextlib.suppress(ImportError):
        import psutil

        return [psutil.virtual_memory().available]
    return []


def _container() -> list[int]:
    """What the control groups (version 2, then 1) leave; caches that the kernel drops on demand count as free."""
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            root = Path(folder)
            left = int((root / limit).read_text()) - int((root / used).read_text())
            cache = re.search(r"^inactive_file (\d+)", (root / "memory.stat").read_text(), re.MULTILINE)
            return [left + (int(cache[1]) if cache else 0)]
    return []
