"""MODEL.json beside MODEL.onnx: what people and other runtimes need to know of the file, as plain JSON.

mamba_vision.deploy reads the same from inside the file; beside it the JSON serves it as a seal (SHA-256).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from mamba_vision.utils.atomic import write_json
from mamba_vision.version import __version__

WRITTEN_BY = "mamba_vision"
_DIRECTIONS = "RAS"  # towards which each canonical axis counts


def description_path(model: Path) -> Path:
    """Where the description of a model file goes.

    Raises:
        ValueError: there is a file of that name which is no such description.
    """
    path = model.with_suffix(".json")
    if path.exists():
        try:
            ours = str(json.loads(path.read_text(encoding="utf-8")).get("written_by", "")).startswith(WRITTEN_BY)
        except (OSError, ValueError, AttributeError):
            ours = False
        if not ours:
            raise ValueError(f"{path}: something else has the name of the model's description; choose another --out")
    return path


def operators(graph: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each operator, the most frequent first; functions count as the node that calls them."""
    return dict(Counter(node.op_type for node in graph.graph.node).most_common())


def write_description(model: Path, graph: onnx.ModelProto, content: Mapping[str, Any]) -> Path:
    """Write what is known of a model file.

    Args:
        model: the file.
        graph: what is in it.
        content: its metadata.
    """
    found = dict(content)
    found.pop("format")
    plan = found.pop("plan", None)
    record = {
        "written_by": f"{WRITTEN_BY} {__version__}",
        "file": model.name,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "bytes": model.stat().st_size,
        "opset": next(one.version for one in graph.opset_import if one.domain in ("", "ai.onnx")),
        "operators": operators(graph),
        "inputs": [_tensor(value, plan) for value in graph.graph.input],
        "outputs": [_tensor(value, plan) for value in graph.graph.output],
        **found,
        **(_of_plan(plan) if plan else {}),
    }
    return write_json(description_path(model), record)


def _tensor(value: onnx.ValueInfoProto, plan: Mapping[str, Any] | None) -> dict[str, Any]:
    kind = value.type.tensor_type
    shape = [size.dim_param or (size.dim_value if size.HasField("dim_value") else None) for size in kind.shape.dim]
    record = {"name": value.name, "type": onnx.TensorProto.DataType.Name(kind.elem_type).lower(), "shape": shape}
    axes = {5: "batch, channel, depth, height, width", 4: "batch, channel, height, width"}.get(len(shape))
    if axes is not None:
        record["layout"] = axes
    if plan and len(shape) == 5:
        names = ", ".join(f"{name} towards {end}" for name, end in zip(("depth", "height", "width"), _ends(plan)))
        record["layout"] = f"batch, channel, {names}"
    return record


def _ends(plan: Mapping[str, Any]) -> str:
    return "".join(_DIRECTIONS[axis] for axis in plan["axes"])


def _of_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan in the words of this file."""
    intensity = [
        {"channel": channel, "normalization": scheme, "inside_nonzero_only": masked, **numbers}
        for channel, scheme, masked, numbers in zip(
            plan["channels"], plan["normalization"], plan["use_mask"], plan["intensities"]
        )
    ]
    names = ("spacing", "patch_size", "labels", "regions", "region_order", "configuration", "dataset")
    return {"orientation": _ends(plan), "intensity": intensity, **{name: plan[name] for name in names}}
