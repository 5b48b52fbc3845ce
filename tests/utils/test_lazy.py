"""Names and rooms of the package come when they are asked for, and without other libraries' chatter."""

import subprocess
import sys


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_rooms_are_attributes_and_other_names_are_not() -> None:
    code = (
        "import sys, mamba_vision; mamba_vision.scan_orders.Orders; print('mmpretrain' in sys.modules);"
        "print(hasattr(mamba_vision, 'rooms'), hasattr(mamba_vision, '__wrapped__'))"
    )
    assert run(code).stdout.split() == ["False", "False", "False"]


def test_imports_say_nothing() -> None:
    found = run("from mamba_vision.apis import init_restorer\nfrom mamba_vision.datasets import RestorationDataset")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
