"""Whether an exported graph gives what PyTorch gives: both run on the same input, like real input, at several sizes."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from mamba_vision.apis.onnx_tasks import SPATIAL, Exportable
from mamba_vision.deploy.torch_graph import ExportError

TOLERANCE = 1e-4  # largest difference over the largest output
_OFFSETS = ((5, 3, 2), (-16, 16, 0), (16, -16, 16), (32, 0, 16))  # of sizes to check with, tried in this order
_LARGE_2D, _LARGE_3D = 224, 64  # sides beyond which checks use smaller inputs, where the size is free
_BATCHES = (1, 3, 2)

How = tuple[int, tuple[int, ...], int]  # batch, size, seed of a check


def traced_size(size: tuple[int, ...]) -> tuple[int, ...]:
    """A size to trace with: sides that differ, so that nothing takes one for the other, and not too large.

    Nor too small: a side that becomes 1 behind a network's strides would be taken for a constant.
    """
    least, most = (64, _LARGE_2D) if len(size) == 2 else (32, _LARGE_3D)
    return tuple(max(least, min(side, most)) + 32 * number for number, side in enumerate(size))


def plan_checks(found: Exportable, size: tuple[int, ...], free: tuple[str, ...], thorough: bool = False) -> list[How]:
    """Two checks, or if `thorough` nine (three sizes, three seeds), at sizes other than the traced one if it is free.

    Raises:
        ExportError: the PyTorch model takes no sizes near `size`.
    """
    names, count = SPATIAL[len(size)], 3 if thorough else 2
    batches = _BATCHES if "batch" in free else (1, 1, 1)
    if any(name in free for name in names):
        sizes = _sizes(found, size, free, count)
    else:
        sizes = [size] * count
    if thorough:
        return [(batch, one, seed) for batch, one in zip(batches, dict.fromkeys(sizes)) for seed in range(3)]
    return [(batch, one, seed) for seed, (batch, one) in enumerate(zip(batches, sizes))]


def _sizes(found: Exportable, size: tuple[int, ...], free: tuple[str, ...], count: int) -> list[tuple[int, ...]]:
    names = SPATIAL[len(size)]
    most = _LARGE_2D if len(size) == 2 else _LARGE_3D
    base, tried = tuple(min(side, most) for side in size), []
    for offsets in ((0, 0, 0), *_OFFSETS):
        one = tuple(side + (offset if name in free else 0) for side, offset, name in zip(base, offsets, names))
        if one != traced_size(size) and one not in tried and min(one) > 0 and _runs(found, one):
            tried.append(one)
        if len(tried) == count:
            return tried
    by = " x ".join(map(str, base))
    raise ExportError(f"size: found no {count} sizes near {by} that the PyTorch model takes, to check with")


def _runs(found: Exportable, size: tuple[int, ...]) -> bool:
    """Whether the PyTorch model takes a size."""
    try:
        torch_result(found, example_arrays(found, 1, size, 0))
    except (ValueError, RuntimeError):
        return False
    return True


def example_arrays(found: Exportable, batch: int, size: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Inputs like real ones, of a batch and size."""
    rng = np.random.default_rng(seed)
    return [one.values((batch, *one.shape(size)), rng) for one in found.inputs]


def torch_result(found: Exportable, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What PyTorch gives."""
    with torch.no_grad():
        return found.module(*(torch.from_numpy(array) for array in arrays)).numpy()


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """ONNX Runtime's, on the CPU; ExportError if it refuses the graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    options.enable_cpu_mem_arena = False  # it would keep what a run takes, for volumes several gigabytes
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime refuses the graph: {_line(error)}") from error


def check(found: Exportable, sessions: Sequence[ort.InferenceSession], how: How) -> dict[str, Any]:
    """Run a check on one graph, or on the graph in float32 and the one in lower precision.

    Returns:
        `inputs` (shapes), `seed`; of the last graph `error`, the largest difference over the largest output,
        `absolute`, the largest difference, and for logits `agreement`, the share of equal arg-maxima; of the first one
        `fp32_error`, and `beyond`, the share of values that differ more than they may.

    Raises:
        ExportError: ONNX Runtime fails, or gives a result of another shape than PyTorch.
    """
    arrays = example_arrays(found, *how)
    expected = torch_result(found, arrays)
    feeds = {one.name: array for one, array in zip(found.inputs, arrays)}
    differences, beyond = [], []
    largest = max(float(np.abs(expected).max()), 1e-30)
    for session in sessions:
        try:
            result = session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})[0]
        except Exception as error:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ExportError(f"ONNX Runtime fails at {shapes}: {_line(error)}") from error
        if result.shape != expected.shape:
            raise ExportError(f"ONNX Runtime gives a result of shape {result.shape}, PyTorch one of {expected.shape}")
        difference = np.abs(result - expected)
        differences.append(float(difference.max()))
        beyond.append(float((~(difference <= TOLERANCE * largest)).mean()))  # also NaN
    record = {
        "inputs": [list(array.shape) for array in arrays], "seed": how[2], "error": differences[-1] / largest,
        "absolute": differences[-1], "fp32_error": differences[0] / largest, "beyond": beyond[0],
    }  # fmt: skip
    if found.output == "logits":
        one_output = expected.shape[1] == 1  # then its sign decides
        classes = [(array > 0) if one_output else array.argmax(1) for array in (result, expected)]
        record["agreement"] = float((classes[0] == classes[1]).mean())
    return record


def explain(found: Exportable, hows: Sequence[How], checks: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """What to say of checks that failed: how far off, and by what; and whether rounding is to blame."""
    worst = max(range(len(checks)), key=lambda number: _or_infinite(checks[number]["fp32_error"]))
    text = (
        f"ONNX Runtime and PyTorch differ by {checks[worst]['fp32_error']:.2g} of the largest output, more than "
        f"{TOLERANCE:g}, at {checks[worst]['beyond']:.2g} of the values"
    )
    rounding = _rounding(found, example_arrays(found, *hows[worst]))
    to_blame = rounding is not None and rounding > TOLERANCE / 4
    if to_blame:
        text += f"; PyTorch itself differs by {rounding:.2g} between single and double precision, as "
        if any(hasattr(module, "stable_sort") for module in found.module.modules()):
            text += (
                "this network sorts pixels by their likeliest class, and where two classes are as likely, rounding "
                "decides where the pixel goes"
            )
        else:
            text += "these weights amplify rounding"
        text += "; --keep writes the file all the same"
    return text, to_blame


def failed(checks: Sequence[dict[str, Any]]) -> bool:
    """Whether the graph in float32 differs from PyTorch."""
    return not all(check["fp32_error"] <= TOLERANCE for check in checks)  # also for NaN


def _rounding(found: Exportable, arrays: Sequence[np.ndarray]) -> float | None:
    """How far PyTorch's result in float32 is from that in float64, over the largest; None if it cannot be had."""
    single = torch_result(found, arrays)
    tensors = [torch.from_numpy(array) for array in arrays]
    try:
        with torch.no_grad():
            module = copy.deepcopy(found.module).double()
            double = module(*(t.double() if t.is_floating_point() else t for t in tensors)).numpy()
    except Exception:  # only for the message: whatever keeps the model from running in float64 is of no interest
        return None
    return float(np.abs(single - double).max() / max(np.abs(double).max(), 1e-30))


def _or_infinite(value: float) -> float:
    return value if value == value else float("inf")


def _line(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " ..."
