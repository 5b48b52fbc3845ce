"""A model to one ONNX file, checked against PyTorch before it is kept.

from mamba_vision.apis import export_onnx

report = export_onnx("configs/vim/vim-tiny_8xb128_in1k.py", "vim_t_midclstok_76p1acc.pth", "vim_tiny.onnx")
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from mamba_vision.apis.onnx_models import load_exportable
from mamba_vision.apis.onnx_tasks import SPATIAL, Exportable
from mamba_vision.deploy.finish import add_scan_function, check_model
from mamba_vision.deploy.precision import PRECISIONS, lower
from mamba_vision.deploy.torch_graph import ExportError, to_onnx, trace
from mamba_vision.kernels import use_backend
from mamba_vision.kernels.ordered_scan.exported import OrderWatch
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.version import __version__

OPSETS = (18, 19, 20, 21, 22, 23)
TOLERANCE = 1e-4  # largest difference over the largest output
KEY = "mamba_vision"  # of the metadata in the file
_OFFSETS = ((5, 3, 2), (-16, 16, 0), (16, -16, 16), (32, 0, 16))  # of sizes to check with, tried in this order
_LARGE_2D, _LARGE_3D = 224, 64  # sides beyond which checks use smaller inputs, where the size is free


@dataclass(frozen=True)
class Report:
    """What became of an export.

    Attributes:
        path: the file.
        name, task: of the model.
        free: names of the sizes left free, the batch's among them.
        notes: what could not be done as asked for, and why.
        size: spatial size that it was made for.
        opset, nodes, file_bytes: of the file.
        checks: a record a check: `inputs` (shapes) and `error`, the largest difference from PyTorch over the largest
            output; for lower precisions also `agreement`, the share of equal arg-maxima.
    """

    path: Path
    name: str
    task: str
    free: tuple[str, ...]
    notes: tuple[str, ...]
    size: tuple[int, ...]
    opset: int
    nodes: int
    file_bytes: int
    checks: tuple[dict[str, Any], ...]

    @property
    def error(self) -> float:
        """The largest of the checks' errors."""
        return max(check["error"] for check in self.checks)


def export_onnx(
    model: str | Path | Exportable,
    checkpoint: str | Path | None,
    out: str | Path,
    size: Sequence[int] | None = None,
    dynamic: Sequence[str] | None = None,
    opset: int = 20,
    precision: str = "fp32",
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Export a model; the file appears only if ONNX Runtime gives what PyTorch gives.

    Args:
        model: a configuration, a work folder, a name of `mamba_vision.list_models()`, or what to export.
        checkpoint: weights; None: a work folder's own, else as initialized.
        out: the file, `.onnx`.
        size: spatial size, by default that of the configuration; what the file takes where sizes are fixed.
        dynamic: names of sizes to leave free (`batch`, `height`, `width`, `depth`), an error where that is not
            possible; () for none; None: all that can be.
        opset: version of the standard operators.
        precision: 'fp32', 'fp16' (weights and most of the arithmetic; scans stay in float32) or 'int8' (weights of
            matrix products; dynamic quantization).
        progress: told of each step.

    Raises:
        ExportError: it cannot be exported as asked for, or the results differ.
        ValueError, FileNotFoundError, CheckpointError: see `load_exportable`.
    """
    say = progress or (lambda text: None)
    out = Path(out)
    if out.suffix != ".onnx":
        raise ValueError(f"out: expected a name that ends in .onnx, found {str(out)!r}")
    if opset not in OPSETS:
        raise ValueError(f"opset: expected one of {', '.join(map(str, OPSETS))}, found {opset}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, found {precision!r}")
    found = model if isinstance(model, Exportable) else load_exportable(model, checkpoint)
    size = _checked_size(found, size)
    say(f"tracing {found.metadata.get('name', 'the model')} ({found.metadata['task']})")
    attempts, notes = _attempts(found, size, dynamic)
    for number, free in enumerate(attempts):
        try:
            graph, checks = _checked_graph(found, size, free, opset, precision, say)
            break
        except ExportError as error:
            if number + 1 == len(attempts):
                raise
            notes.append(f"size fixed to {_by(size)}: {error}")
            say(notes[-1])
    _add_metadata(graph, found, size, free, precision, checks, checkpoint)
    check_model(graph)
    with atomic_path(out) as temporary:
        onnx.save(graph, temporary)
    return Report(
        out, found.metadata.get("name", out.stem), found.metadata["task"], free, tuple(notes), size, opset,
        len(graph.graph.node), out.stat().st_size, checks,
    )  # fmt: skip


# ---- sizes -----------------------------------------------------------------------------------------------------------
def _checked_size(found: Exportable, size: Sequence[int] | None) -> tuple[int, ...]:
    if size is None:
        return found.size
    size = tuple(int(side) for side in size)
    if len(size) == 1:
        size = size * len(found.size)
    if len(size) != len(found.size) or min(size) < 1:
        raise ValueError(f"size: expected {len(found.size)} numbers above 0, found {size}")
    if not found.free and size != found.size:
        raise ExportError(f"size: this model takes {_by(found.size)} only: {found.why_fixed}")
    return size


def _traced_size(size: tuple[int, ...]) -> tuple[int, ...]:
    """A size to trace with: sides that differ, so that nothing takes one for the other, and not too large."""
    most = _LARGE_2D if len(size) == 2 else _LARGE_3D
    return tuple(min(side, most) + 32 * number for number, side in enumerate(size))


def _check_sizes(
    found: Exportable, size: tuple[int, ...], free: tuple[str, ...]
) -> list[tuple[int, tuple[int, ...], int]]:
    """(batch, size, seed) of the checks: two at least, at sizes other than the traced one where sizes are free."""
    names = SPATIAL[len(size)]
    batches = (1, 3) if "batch" in free else (1, 1)
    if not any(name in free for name in names):
        return [(batch, size, seed) for seed, batch in enumerate(batches)]
    most = _LARGE_2D if len(size) == 2 else _LARGE_3D
    base, tried = tuple(min(side, most) for side in size), []
    for offsets in ((0, 0, 0), *_OFFSETS):
        one = tuple(side + (offset if name in free else 0) for side, offset, name in zip(base, offsets, names))
        if one != _traced_size(size) and one not in tried and _runs(found, one):
            tried.append(one)
        if len(tried) == 2:
            break
    if len(tried) < 2:
        raise ExportError(f"size: found no two sizes near {_by(base)} that the PyTorch model takes, to check with")
    return [(batch, one, seed) for seed, (batch, one) in enumerate(zip(batches, tried))]


def _runs(found: Exportable, size: tuple[int, ...]) -> bool:
    """Whether the PyTorch model takes a size."""
    try:
        _torch_result(found, example_arrays(found, 1, size, 0))
    except (ValueError, RuntimeError):
        return False
    return True


# ---- graph -----------------------------------------------------------------------------------------------------------
def _attempts(
    found: Exportable, size: tuple[int, ...], dynamic: Sequence[str] | None
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Names of sizes to leave free, tried in this order, and remarks. Where the user names them there is one try."""
    names = list(dict.fromkeys(name for one in found.inputs for name in one.free.values()))
    sides = SPATIAL[len(size)]
    if dynamic is not None:
        unknown = [name for name in dynamic if name not in names]
        if unknown:
            raise ValueError(f"dynamic: expected some of {', '.join(names)}, found {', '.join(unknown)}")
        if not found.free and any(name in sides for name in dynamic):
            raise ExportError(f"dynamic: the size is fixed to {_by(size)}: {found.why_fixed}")
        return [tuple(dynamic)], []
    fixed = tuple(name for name in names if not name.endswith(sides))
    if not found.free:
        return [fixed], [f"size fixed to {_by(size)}: {found.why_fixed}"]
    return [tuple(names), fixed], []


def _checked_graph(
    found: Exportable, size: tuple[int, ...], free: tuple[str, ...], opset: int, precision: str,
    say: Callable[[str], None],
) -> tuple[onnx.ModelProto, tuple[dict[str, Any], ...]]:  # fmt: skip
    """The graph in its precision, and the checks that it passed.

    Raises:
        ExportError: it cannot be made, or the results of the graph in float32 differ from PyTorch's.
    """
    graph = plain = _export(found, size, free, opset)
    if precision != "fp32":
        say(f"lowering to {precision}")
        plain = onnx.ModelProto.FromString(graph.SerializeToString())
        graph = lower(graph, precision)
        add_scan_function(graph)
    add_scan_function(plain)
    say("checking against PyTorch")
    sessions = [_session(plain)] + ([] if graph is plain else [_session(graph)])
    checks = tuple(_check(found, sessions, shapes) for shapes in _check_sizes(found, size, free))
    worst = max(check["fp32_error"] for check in checks)
    if not worst <= TOLERANCE:  # also for NaN
        raise ExportError(
            f"ONNX Runtime and PyTorch differ by {worst:.2g} of the largest output, more than {TOLERANCE:g}; nothing "
            "was written"
        )
    return graph, checks


def _export(found: Exportable, size: tuple[int, ...], free: Sequence[str], opset: int) -> onnx.ModelProto:
    sides = SPATIAL[len(size)]
    open_size = any(name in free for name in sides)
    traced = _traced_size(size) if open_size else size
    traced = tuple(one if name in free else fixed for one, fixed, name in zip(traced, size, sides))
    dynamic = [{axis: name for axis, name in one.free.items() if name in free} for one in found.inputs]
    arrays = example_arrays(found, 2 if "batch" in free else 1, traced, 0)
    tensors = [torch.from_numpy(array) for array in arrays]
    try:
        with torch.no_grad(), use_backend("portable"), OrderWatch() as watch:  # the reference would not show its orders
            found.module(*tensors)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"the PyTorch model does not take {_by(traced)}: {reason}") from error
    program = trace(found.module, tensors, dynamic, watch)
    return to_onnx(program, [one.name for one in found.inputs], [found.output], dynamic, opset)


# ---- checks ----------------------------------------------------------------------------------------------------------
def example_arrays(found: Exportable, batch: int, size: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Inputs like real ones, of a batch and size."""
    rng = np.random.default_rng(seed)
    return [one.values((batch, *one.shape(size)), rng) for one in found.inputs]


def _torch_result(found: Exportable, arrays: Sequence[np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return found.module(*(torch.from_numpy(array) for array in arrays)).numpy()


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"ONNX Runtime refuses the graph: {reason}") from error


def _check(
    found: Exportable, sessions: Sequence[ort.InferenceSession], how: tuple[int, tuple[int, ...], int]
) -> dict[str, Any]:
    arrays = example_arrays(found, *how)
    expected = _torch_result(found, arrays)
    feeds = {one.name: array for one, array in zip(found.inputs, arrays)}
    errors = []
    for session in sessions:
        try:
            result = session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})[0]
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(f"ONNX Runtime fails at {[array.shape for array in arrays]}: {reason}") from error
        if result.shape != expected.shape:
            raise ExportError(f"ONNX Runtime gives a result of shape {result.shape}, PyTorch one of {expected.shape}")
        errors.append(float(np.abs(result - expected).max() / max(np.abs(expected).max(), 1e-30)))
    record = {"inputs": [list(array.shape) for array in arrays], "error": errors[-1], "fp32_error": errors[0]}
    if len(sessions) > 1 and found.output == "logits":
        record["agreement"] = float((result.argmax(1) == expected.argmax(1)).mean())
    return record


# ---- metadata --------------------------------------------------------------------------------------------------------
def _add_metadata(
    model: onnx.ModelProto, found: Exportable, size: tuple[int, ...], free: Sequence[str], precision: str,
    checks: Sequence[Mapping[str, Any]], checkpoint: str | Path | None,
) -> None:  # fmt: skip
    weights = None
    if checkpoint is not None:
        weights = {"file": Path(checkpoint).name, "sha256": hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()}
    content = {
        "format": 1, **found.metadata, "size": list(size), "free": list(free), "precision": precision,
        "checks": list(checks), "weights": weights,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"mamba_vision": __version__}
        | {name: packages.version(name) for name in ("torch", "onnx", "onnxruntime")},
    }  # fmt: skip
    model.producer_name, model.producer_version = "mamba_vision", __version__
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: json.dumps(content, ensure_ascii=False)})


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
