"""Compiles the C++ scan, once for each state of its source, compiler and machine."""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mamba_vision.utils.atomic import atomic_path

SOURCE = Path(__file__).parent
_logger = logging.getLogger("mamba_vision.kernels")
COMPILERS = ("c++", "g++", "clang++")
# without errno and traps loops over channels become vector instructions; nothing here looks at either
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-shared")
FLAGS += ("-pthread", "-Wno-psabi")
ORT_HEADER = "onnxruntime_c_api.h"
GPU_SOURCES = ("triton_common.py", "selective_scan/triton_forward.py")  # what gpu_kernels.py calls
# where ONNX Runtime's packages and `make install` put its headers
_ORT_FOLDERS = ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime", "/opt/homebrew/include/onnxruntime")


class BuildError(RuntimeError):
    """The C++ source could not be compiled; the message says what is missing, or what the compiler said."""


def build_torch_library() -> Path:
    """The library of the PyTorch backend `native`, compiled if there is none in the cache.

    Raises:
        BuildError: no C++ compiler is found, or it fails.
    """
    return _build("scan", ("selective_scan.cpp", "c_api.cpp"), ())


def build_ort_library(include: str | Path | None = None, out: str | Path | None = None) -> Path:
    """The library of ONNX Runtime's operators, scans, norms and GELU, for `register_custom_ops_library`.

    Args:
        include: folder of ONNX Runtime's C header; by default ORT_INCLUDE, or where packages put it.
        out: where to put the library; by default the cache.

    Raises:
        BuildError: the header or a C++ compiler is missing, or it fails.
    """
    folder = ort_include(include)
    library = _build("ort_scan", ("selective_scan.cpp", "ort_op.cpp"), (f"-I{folder}",), (folder / ORT_HEADER,))
    return library if out is None else _copied(library, out)


def build_ort_cuda_library(include: str | Path | None = None, out: str | Path | None = None) -> Path:
    """The library of ONNX Runtime's scans on its CUDA provider, for NVIDIA GPUs since Ampere; built without a GPU.

    Arguments as of `build_ort_library`.

    Raises:
        BuildError: the header, Triton or a C++ compiler is missing, one fails, or the system is not Linux.
    """
    if platform.system() != "Linux":
        raise BuildError(f"ONNX Runtime's scans for CUDA are built on Linux, this is {platform.system()}")
    folder, kernels = ort_include(include), _gpu_kernels()
    flags = (f"-I{folder}", f'-DGPU_KERNELS="{kernels}"')
    library = _build("ort_cuda", ("ort_cuda.cpp",), flags, (folder / ORT_HEADER, kernels), ("-ldl",))
    return library if out is None else _copied(library, out)


def _gpu_kernels() -> Path:
    """The GPU kernels as C++, compiled if there are none in the cache."""
    try:
        import triton
    except ImportError as error:
        raise BuildError(f"Triton is needed to compile GPU kernels ({error}): pip install triton") from error
    key = hashlib.sha256(triton.__version__.encode())
    for path in (*SOURCE.glob("gpu_*.py"), *(SOURCE.parent / name for name in GPU_SOURCES)):
        key.update(path.read_bytes())
    target = cache_folder() / f"gpu_kernels_{key.hexdigest()[:16]}.inc"
    if not target.is_file():
        from mamba_vision.kernels.native.gpu_build import ptx_source

        _logger.warning("compiling GPU kernels, once: about half a minute; they are kept in %s", target.parent)
        try:
            source = ptx_source()
        except Exception as error:  # Triton's own errors are of many types
            raise BuildError(f"Triton could not compile the GPU kernels: {error}") from error
        with atomic_path(target) as made:
            made.write_text(source)
    return target


def _copied(library: Path, out: str | Path) -> Path:
    with atomic_path(out) as copy:
        shutil.copy(library, copy)
    return Path(out)


def ort_include(include: str | Path | None = None) -> Path:
    """The folder of ONNX Runtime's C header; arguments and errors as of `build_ort_library`.

    Raises:
        BuildError: no folder has the header.
    """
    asked = include or os.environ.get("ORT_INCLUDE")
    prefix = os.environ.get("CONDA_PREFIX")
    usual = (*_ORT_FOLDERS, *((f"{prefix}/include/onnxruntime",) if prefix else ()))
    for root in (asked,) if asked else usual:
        for folder in (Path(root), Path(root) / "onnxruntime", Path(root) / "onnxruntime/core/session"):
            if (folder / ORT_HEADER).is_file():
                return folder.resolve()
    where = f"there is none in {asked}" if asked else f"looked in {', '.join(usual)}"
    raise BuildError(
        f"ONNX Runtime's header {ORT_HEADER} is needed to build its operator, but {where}. It is in the folder "
        "'include' of ONNX Runtime's released archives and in Debian's and Ubuntu's package libonnxruntime-dev, not in "
        "its Python package; name its folder with --include or the environment variable ORT_INCLUDE"
    )


def find_compiler() -> list[str]:
    """The command of the C++ compiler: the environment variable CXX, or the first of c++, g++ and clang++.

    Raises:
        BuildError: there is none.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in [asked] if asked else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    tried = f"CXX={os.environ['CXX']}" if asked else ", ".join(COMPILERS)
    raise BuildError(
        f"no C++ compiler found (tried {tried}): install one, for example with the package g++ or clang, or name it "
        "with the environment variable CXX"
    )


def cache_folder() -> Path:
    """Where compiled libraries are kept: MAMBA_VISION_CACHE, else mamba_vision in the user's cache folder."""
    asked = os.environ.get("MAMBA_VISION_CACHE")
    if asked:
        return Path(asked)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mamba_vision"


def _build(
    name: str,
    sources: Sequence[str],
    flags: Sequence[str],
    depends_on: Sequence[Path] = (),
    libraries: Sequence[str] = (),
) -> Path:
    compiler = find_compiler()
    command = [*compiler, *FLAGS, *flags]
    key = hashlib.sha256("\0".join([*command, *libraries, _version(tuple(compiler)), platform.machine()]).encode())
    for path in (*sorted(SOURCE.glob("*.[ch]pp")), *depends_on):
        key.update(path.read_bytes())
    suffix = {"Darwin": ".dylib"}.get(platform.system(), ".so")
    target = cache_folder() / f"{name}_{key.hexdigest()[:16]}{suffix}"
    if target.is_file():
        return target
    try:
        with atomic_path(target) as made:
            _logger.warning("compiling the C++ scan, once: some ten seconds; it is kept in %s", target.parent)
            files = [str(SOURCE / source) for source in sources]
            full = [*command, *files, "-o", str(made), *libraries]
            run = subprocess.run(full, capture_output=True, text=True, check=False)
            if run.returncode:
                raise BuildError(f"{shlex.join(command)} failed:\n{run.stderr[-4000:]}")
    except OSError as error:
        raise BuildError(
            f"{target.parent} can't hold the compiled library ({error}): name a folder that can be written to with the "
            "environment variable MAMBA_VISION_CACHE"
        ) from error
    return target


@cache
def _version(compiler: tuple[str, ...]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
