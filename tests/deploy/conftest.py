"""ONNX Runtime with our operator library, where it can be built."""

import onnxruntime as ort
import pytest

from mamba_vision.kernels.native import BuildError, build_ort_library


@pytest.fixture
def library() -> str:
    """Path of the operator library."""
    try:
        return str(build_ort_library())
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def with_library(library: str) -> ort.SessionOptions:
    """Options of a session that runs our kernels."""
    options = ort.SessionOptions()
    options.register_custom_ops_library(library)
    return options
