"""The backends under test: portable always, C++ where there is a compiler, Triton in its interpreter
(TRITON_INTERPRET=1) or on a GPU (-m gpu)."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from mamba_vision.kernels import use_backend
from mamba_vision.kernels.native.build import BuildError, find_compiler

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


class Backend(NamedTuple):
    """A backend and where its tensors live."""

    name: str
    device: str

    @property
    def examples(self) -> int:
        """How many random cases are worth trying: the interpreter is slow."""
        return 8 if self.name == "triton" and self.device == "cpu" else 40


PARAMETERS = [
    pytest.param(Backend("portable", "cpu"), id="portable"),
    pytest.param(Backend("native", "cpu"), id="native"),
    pytest.param(Backend("portable", "cuda"), id="portable-gpu", marks=pytest.mark.gpu),
    pytest.param(Backend("triton", "cuda"), id="triton-gpu", marks=pytest.mark.gpu),
]
if INTERPRETED:
    PARAMETERS.append(pytest.param(Backend("triton", "cpu"), id="triton-interpreted"))


@pytest.fixture(params=PARAMETERS)
def backend(request) -> Iterator[Backend]:
    """Every test with this fixture runs on each backend; the ops called inside use it."""
    if request.param.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    _skip_without_compiler(request.param.name)
    with use_backend(request.param.name):
        yield request.param


@pytest.fixture(params=["portable", "native"])
def cpu_backend(request) -> str:
    """Every test with this fixture runs on the backends for CPUs, by name."""
    _skip_without_compiler(request.param)
    return request.param


def _skip_without_compiler(backend: str) -> None:
    if backend == "native":
        try:
            find_compiler()
        except BuildError as error:
            pytest.skip(str(error))
