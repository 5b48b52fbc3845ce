"""Keeping other libraries' chatter off the user's screen, and nothing else."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

# Said while mmcv, mmseg, mmpretrain and MONAI are imported, true of every installation and of no use to anybody.
_NOISE = ("Could not import OneDL", "MultiScaleDeformableAttention", "nvImageCodec", "nvimgcodec")


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Import heavy libraries inside: what is known to be noise is dropped, everything else is printed afterwards."""
    said = io.StringIO()
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    for message in (*_NOISE, "Fail to import"):
        warnings.filterwarnings("ignore", message=f".*{message}")
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            if not any(noise in line for noise in _NOISE):
                print(line, file=sys.stdout)
