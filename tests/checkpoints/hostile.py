"""Files that a careless loader would obey."""

from pathlib import Path
from typing import Any

import torch


class WritesMarker:
    """Unpickled without protection, this opens a file for writing: the proof that the file's code ran."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple]:
        return open, (str(self.marker), "w")


def hostile_file(folder: Path, state: dict[str, torch.Tensor], name: str = "hostile.pth") -> tuple[Path, Path]:
    """A checkpoint in MMEngine's form, whole but for one entry that runs code; and the marker that it writes."""
    path, marker = folder / name, folder / "marker"
    torch.save({"state_dict": state, "meta": {}, "extra": WritesMarker(marker)}, path)
    return path, marker
