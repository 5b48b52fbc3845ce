"""An exported model, opened: the runtime's session and what the file says of itself.

A model file is data. Opening one runs nothing but ONNX Runtime's own operators: operator libraries are loaded from
where the user says, never from where a file says, and a file that refers to other files is refused.
"""

from pathlib import Path

import numpy as np

from mamba_vision.deploy.metadata import VERBS, ModelFileError, check_seal, read_info
from mamba_vision.deploy.proto import BrokenFileError, check_bytes


class ModelFile:
    """A model that runs.

    Args:
        path: `.onnx`, as tools/export_onnx.py writes it.
        library: our library of operators for ONNX Runtime, which makes scans several times faster, the one for the
            first provider; None: the standard operators, with the same results.
        threads: of the runtime; None: as many as there are cores.
        providers: of ONNX Runtime, in order of preference; `providers_of` names those of a device.

    Attributes:
        path: the file.
        info: what the file says of itself: task, labels, preprocessing, plan ...

    Raises:
        FileNotFoundError: no such file or library.
        ModelFileError: no model, a damaged one, one that refers to other files, one that was not exported here, or not
            the one that MODEL.json beside it describes.
    """

    def __init__(
        self,
        path: str | Path,
        library: str | Path | None = None,
        threads: int | None = None,
        providers: tuple[str | tuple[str, dict], ...] = ("CPUExecutionProvider",),
    ) -> None:
        import onnxruntime as ort

        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such model file")
        content = self.path.read_bytes()
        try:
            check_bytes(content)
        except BrokenFileError as error:
            raise ModelFileError(f"{self.path}: expected a complete ONNX model in one file, found {error}") from error
        check_seal(self.path, content)
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        if threads is not None:
            options.intra_op_num_threads = threads
        if library is not None:
            if not Path(library).is_file():
                raise FileNotFoundError(f"{library}: no such library of operators")
            try:
                options.register_custom_ops_library(str(Path(library).resolve()))
            except Exception as error:
                raise ModelFileError(f"{library}: not a library of operators ({_line(error)})") from error
        try:
            self.session = ort.InferenceSession(content, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime has a type of its own for each kind
            what = f"{self.path}: ONNX Runtime refuses it ({_line(error)})"
            if library is not None and "Could not find an implementation" in str(error):
                first = providers[0] if isinstance(providers[0], str) else providers[0][0]
                what += f"; {library} is made for another provider than {first}"
            raise ModelFileError(what) from error
        self.info = read_info(self.path, self.session.get_modelmeta().custom_metadata_map)
        self.inputs = {one.name: tuple(one.shape) for one in self.session.get_inputs()}
        axes = 5 if self.task == "volume_segmentation" else 4
        first = next(iter(self.inputs.values()), ())
        if len(first) != axes:
            raise ModelFileError(f"{self.path}: expected a first input of {axes} axes, found {first}")

    @property
    def task(self) -> str:
        """What it does, one of VERBS."""
        return self.info["task"]

    def expect(self, *tasks: str) -> None:
        """Raise ModelFileError unless the model does one of these."""
        if self.task not in tasks:
            raise ModelFileError(
                f"{self.path}: expected a model for {' or '.join(tasks)}, found one for {self.task}, which is used by "
                f"python -m mamba_vision.deploy {VERBS[self.task]}"
            )

    def side(self, axis: int) -> int | None:
        """The fixed size of the first input along an axis, or None where it is free."""
        size = next(iter(self.inputs.values()))[axis]
        return size if isinstance(size, int) else None

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """The first output, from the inputs in their order.

        Raises:
            ValueError: arrays that the model does not take.
        """
        feeds = dict(zip(self.inputs, arrays))
        for (name, shape), array in zip(self.inputs.items(), arrays):
            fits = len(shape) == array.ndim and all(
                want == have for want, have in zip(shape, array.shape) if isinstance(want, int)
            )
            if not fits:
                raise ValueError(f"{self.path}: {name} has shape {array.shape}, the model takes {shape}")
        try:
            return self.session.run(None, feeds)[0]
        except Exception as error:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(f"{self.path}: the model cannot take {shapes} ({_line(error)})") from error


def providers_of(device: str) -> tuple[str | tuple[str, dict], ...]:
    """ONNX Runtime's providers for 'cpu', 'cuda' or 'cuda:1'.

    Raises:
        ValueError: the installed ONNX Runtime cannot use that device.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ("CPUExecutionProvider",)
    import onnxruntime as ort

    found = ort.get_available_providers()
    if kind != "cuda" or "CUDAExecutionProvider" not in found or not (number or "0").isdigit():
        raise ValueError(
            f"device: the installed ONNX Runtime cannot use {device!r}, it has {', '.join(found)}; for a GPU install "
            "onnxruntime-gpu, or choose cpu"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries from NVIDIA's Python packages, if they are installed
    return (("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider")


def _line(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return text.removeprefix("[ONNXRuntimeError] : ")[:200]
