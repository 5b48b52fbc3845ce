"""The selective scan in C++: the backend `native` of PyTorch, and ONNX Runtime's operators. See README.md."""

from mamba_vision.kernels.native.build import (
    BuildError,
    build_ort_cuda_library,
    build_ort_library,
    build_torch_library,
)

__all__ = ["BuildError", "build_ort_cuda_library", "build_ort_library", "build_torch_library"]
