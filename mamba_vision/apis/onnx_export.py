"""A model to one ONNX file, checked against PyTorch before it is kept.

from mamba_vision.apis import export_onnx

report = export_onnx("configs/vim/vim-tiny_8xb128_in1k.py", "vim_t_midclstok_76p1acc.pth", "vim_tiny.onnx")
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import onnx
import torch

from mamba_vision.apis.onnx_check import check, example_arrays, explain, failed, open_session, plan_checks, traced_size
from mamba_vision.apis.onnx_description import description_path, operators, write_description
from mamba_vision.apis.onnx_models import load_exportable
from mamba_vision.apis.onnx_tasks import SPATIAL, Exportable
from mamba_vision.apis.volume_model import checkpoint_hash
from mamba_vision.deploy.finish import add_scan_function, check_model
from mamba_vision.deploy.metadata import KEY
from mamba_vision.deploy.precision import PRECISIONS, lower
from mamba_vision.deploy.scans import LOWRES
from mamba_vision.deploy.torch_graph import ExportError, to_onnx, trace
from mamba_vision.kernels import use_backend
from mamba_vision.kernels.ordered_scan.exported import OrderWatch
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.version import __version__

OPSETS = (18, 19, 20, 21, 22, 23)


@dataclass(frozen=True)
class Report:
    """What became of an export.

    Attributes:
        path: the file.
        name, task: of the model.
        free: names of the sizes left free, the batch's among them.
        notes: what could not be done as asked for, and why.
        size: spatial size that it was made for.
        opset, file_bytes: of the file.
        operators: how many nodes of each, the most frequent first.
        checks: a record a check: `inputs` (shapes), `error`, the largest difference from PyTorch over the largest
            output, `absolute`, the largest difference, and for logits `agreement`, the share of equal arg-maxima.
        description: MODEL.json beside the file.
        lowres: of the file of a cascade's first network.
    """

    path: Path
    name: str
    task: str
    free: tuple[str, ...]
    notes: tuple[str, ...]
    size: tuple[int, ...]
    opset: int
    operators: dict[str, int]
    file_bytes: int
    checks: tuple[dict[str, Any], ...]
    description: Path
    lowres: "Report | None" = None

    @property
    def nodes(self) -> int:
        """Of the graph."""
        return sum(self.operators.values())

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
    *,
    folds: Sequence[str | int] = (),
    verify: bool = False,
    keep: bool = False,
    licence: str | None = None,
) -> Report:
    """Export a model; the file appears only if ONNX Runtime gives what PyTorch gives.

    Beside it goes MODEL.json, which describes it. The second network of a cascade gets a file for the first one too,
    MODEL_lowres.onnx.

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
        folds: of a work folder, whose logits are averaged; default: its own checkpoint, or all its folds.
        verify: check at three sizes with three seeds each, in place of two sizes.
        keep: write the file also if the results differ; the report then has a note.
        licence: of the weights, for the metadata.

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
    description_path(out)
    found = model if isinstance(model, Exportable) else load_exportable(model, checkpoint, folds)
    size = _checked_size(found, size)
    say(f"tracing {found.metadata.get('name', 'the model')} ({found.metadata['task']})")
    attempts, notes = _attempts(found, size, dynamic)
    for number, free in enumerate(attempts):
        try:
            last = number + 1 == len(attempts)
            graph, checks, note = _checked_graph(found, size, free, opset, precision, say, verify, keep, last)
            notes += [note] * bool(note)
            break
        except ExportError as error:
            if last:
                raise
            notes.append(f"size fixed to {_by(size)}: {error}")
            say(notes[-1])
    content = _metadata(found, size, free, precision, checks, checkpoint, licence)
    _add_metadata(graph, content)
    check_model(graph)
    lowres = None
    if found.lowres is not None:
        first = out.with_name(f"{out.stem}{LOWRES}{out.suffix}")
        lowres = export_onnx(
            found.lowres, None, first, None, None, opset, precision, progress, verify=verify, keep=keep, licence=licence
        )
    with atomic_path(out) as temporary:
        onnx.save(graph, temporary)
    return Report(
        out, found.metadata.get("name", out.stem), found.metadata["task"], free, tuple(notes), size, opset,
        operators(graph), out.stat().st_size, checks, write_description(out, graph, content), lowres,
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
    say: Callable[[str], None], thorough: bool, keep: bool, last: bool,
) -> tuple[onnx.ModelProto, tuple[dict[str, Any], ...], str]:  # fmt: skip
    """The graph in its precision, the checks that it passed, and a note if it is kept although it did not.

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
    sessions = [open_session(plain)] + ([] if graph is plain else [open_session(graph)])
    hows = plan_checks(found, size, free, thorough)
    checks = tuple(check(found, sessions, how) for how in hows)
    if not failed(checks):
        return graph, checks, ""
    difference, rounding = explain(found, hows, checks)
    if not (keep and (last or rounding)):  # no other size would round otherwise
        raise ExportError(difference)
    return graph, checks, f"kept all the same: {difference}"


def _export(found: Exportable, size: tuple[int, ...], free: Sequence[str], opset: int) -> onnx.ModelProto:
    sides = SPATIAL[len(size)]
    open_size = any(name in free for name in sides)
    traced = traced_size(size) if open_size else size
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


# ---- metadata --------------------------------------------------------------------------------------------------------
def _metadata(
    found: Exportable, size: tuple[int, ...], free: Sequence[str], precision: str, checks: Sequence[Mapping[str, Any]],
    checkpoint: str | Path | None, licence: str | None,
) -> dict[str, Any]:  # fmt: skip
    weights = []
    if checkpoint is not None:
        weights = [{"file": Path(checkpoint).name, "sha256": checkpoint_hash(checkpoint)}]
    return {
        "format": 1, "weights": weights, **found.metadata, "size": list(size), "free": list(free),
        "precision": precision, "checks": list(checks), "licence": licence or "not stated",
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"mamba_vision": __version__}
        | {name: packages.version(name) for name in ("torch", "onnx", "onnxruntime")},
    }  # fmt: skip


def _add_metadata(model: onnx.ModelProto, content: Mapping[str, Any]) -> None:
    model.producer_name, model.producer_version = "mamba_vision", __version__
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: json.dumps(content, ensure_ascii=False)})


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
