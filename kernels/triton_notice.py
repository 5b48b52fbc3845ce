"""One line to the user before the first compilation of a process, which would otherwise look like a hang."""

import logging
from pathlib import Path

from mamba_vision.kernels.triton_common import INTERPRETED

_logger = logging.getLogger("mamba_vision.kernels")
_told = False


def announce_compilation() -> None:
    """Say, once a process, that kernels are compiled now, unless Triton's disk cache already holds some."""
    global _told
    if _told or INTERPRETED:
        return
    _told = True
    try:
        from triton import knobs

        folder = Path(knobs.cache.dir)
    except (ImportError, AttributeError):
        folder = Path.home() / ".triton" / "cache"
    if not folder.is_dir() or not any(folder.iterdir()):
        _logger.warning(
            "compiling the Triton kernels for this GPU: the first call of each layer shape takes some seconds; "
            "the results are kept in %s",
            folder,
        )
