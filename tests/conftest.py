"""What every test shares: one CPU thread (two test processes on two cores), seeds, and the parity cases."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
sys.path[:0] = [str(GOLDEN), str(GOLDEN.parent / "models")]

from golden import Case  # noqa: E402

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="run the recorded cases there, and only these, e.g. cuda")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Elsewhere than on a CPU only what is meant for any device: the recorded cases and tests marked `any_device`."""
    if config.getoption("--device") == "cpu":
        return
    meant = [item for item in items if "golden" in item.fixturenames or item.get_closest_marker("any_device")]
    left_out = [item for item in items if item not in meant]
    config.hook.pytest_deselected(items=left_out)
    items[:] = meant


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def on_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--device cuda` what a test makes is made there, and convolutions keep float32's precision."""
    device = request.config.getoption("--device")
    if device == "cpu":
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    with torch.device(device):
        yield


@pytest.fixture(autouse=True, scope="module")
def _no_scope_left_by_other_files() -> None:
    _forget_default_scope()


@pytest.fixture(autouse=True)
def _no_scope_left_by_other_tests() -> None:
    _forget_default_scope()


def _forget_default_scope() -> None:
    """MMEngine keeps the default scope of the last Runner for the whole process; tests must pass in any order."""
    if registry := sys.modules.get("mmengine.registry"):
        registry.DefaultScope._instance_dict.clear()


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str], Case]:
    """`golden('vim/vim_tiny_224')` is that recorded parity case, its inputs on the device of `--device`."""
    device = request.config.getoption("--device")

    def load(name: str) -> Case:
        case = Case.load(GOLDEN / name)
        if device != "cpu":
            for part in ("inputs", "state_dict"):
                moved = {key: value.to(device) for key, value in getattr(case, part)().items()}
                setattr(case, part, moved.copy)
        return case

    return load
