"""Run mamba_vision.deploy's command line in a process where PyTorch, MMEngine and their kin cannot be imported."""

import subprocess
import sys
from pathlib import Path

_BLOCKED = ("torch", "torchvision", "mmengine", "mmcv", "mmseg", "mmpretrain", "monai", "onnx", "onnxscript", "cv2")
_CODE = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {_BLOCKED!r}:
            raise ImportError(name + " is blocked in this test")

sys.meta_path.insert(0, Blocked())
from mamba_vision.deploy.command import main
raise SystemExit(main(sys.argv[1:]))
"""


def deploy(*arguments: str | Path) -> subprocess.CompletedProcess:
    """The finished process; its output is text."""
    command = [sys.executable, "-c", _CODE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
