"""Smaller ONNX graphs: weights in half precision or in 8 bits, the scans as they are.

Both are done before the scans' function is appended (`finish.add_scan_function`): converters of whole files know
nothing of functions.
"""

import logging
import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx

from mamba_vision.deploy import norm_function, ordered_function
from mamba_vision.deploy.row_functions import GELU, LAYER_NORM
from mamba_vision.deploy.scan_function import CONVOLUTION, OPERATOR

PRECISIONS = ("fp32", "fp16", "int8")
# Sums over many values, exponentials and what a position is computed from stay in float32.
_FLOAT32_OPERATORS = (
    OPERATOR, CONVOLUTION, ordered_function.OPERATOR, norm_function.OPERATOR, LAYER_NORM, GELU, "LayerNormalization",
    "InstanceNormalization", "GroupNormalization", "ReduceMean", "ReduceSum", "Exp", "Softplus", "Softmax", "Pow",
    "Sqrt", "Reciprocal", "Range", "Resize", "CumSum", "TopK", "Einsum", "NonZero", "ScatterElements", "ScatterND",
)  # fmt: skip
_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")


def lower(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The graph in another precision; inputs and outputs stay float32.

    Args:
        model: in float32, its scans as nodes, without functions.
        precision: 'fp16': weights, convolutions and matrix products; 'int8': weights of matrix products, quantized
            once, their inputs at run time.
    """
    return _half(model) if precision == "fp16" else _quantized(model)


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    kept = {*DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPERATORS}
    # it casts what operators in float32 take where it knows the type, which the exporter's value infos say
    model = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True,
        op_block_list=sorted(kept), node_block_list=_between(model.graph, kept),
    )  # fmt: skip
    made: set[str] = set()  # a weight that two scans share is cast once for each, under one name
    nodes = [node for node in model.graph.node if not made.issuperset(node.output) and not made.update(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _cut_detours(model.graph)
    OnnxModel.graph_topological_sort(model.graph)  # casts are put at the end
    return model


def _between(graph: onnx.GraphProto, kept: Collection[str]) -> list[str]:
    """Names of the nodes with float32 operators on all sides, as the sum with epsilon in a root mean square.

    Not products: their weights are what half precision is for.
    """
    makers = {name: node.op_type for node in graph.node for name in node.output}
    users: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    return [
        node.name
        for node in graph.node
        if node.name
        and node.op_type not in _PRODUCTS
        and (before := [makers[name] for name in node.input if name in makers])
        and kept.issuperset(before)
        and (behind := [kind for name in node.output for kind in users.get(name, [])])
        and kept.issuperset(behind)
    ]


def _cut_detours(graph: onnx.GraphProto) -> None:
    """Hand on float32 values between float32 operators as they are.

    Through half precision, as the converter does it, a square of more than 65504 becomes infinite.
    """
    makers = {name: node for node in graph.node for name in node.output}

    def cast_from(name: str, kind: int) -> str | None:
        node = makers.get(name)
        made = node is not None and node.op_type == "Cast" and node.attribute[0].i == kind
        return node.input[0] if made else None

    for node in graph.node:
        for place, name in enumerate(node.input):
            half = cast_from(name, onnx.TensorProto.FLOAT)
            before = half and cast_from(half, onnx.TensorProto.FLOAT16)
            if before and before.endswith("_cast_to_fp16"):  # the converter's name for what a float32 operator makes
                node.input[place] = before
    wanted = {one.name for one in graph.output}
    while True:
        used = wanted.union(*(node.input for node in graph.node))
        left = [node for node in graph.node if node.op_type != "Cast" or node.output[0] in used]
        if len(left) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(left)


def _quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        before, behind = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        # ONNX Runtime multiplies by tables only; batches of them are the projections of step sizes, small and delicate
        wide = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) != 2}
        kept = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in wide]
        del model.graph.value_info[:]  # shapes before quantization would contradict those behind it
        onnx.save(model, before)
        logged = logging.root.manager.disable
        logging.disable(logging.WARNING)  # advice to prepare the graph, and about types, all of which are float32
        try:
            quantize_dynamic(
                before, behind, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True,
                nodes_to_exclude=kept,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
            )  # fmt: skip
        finally:
            logging.disable(logged)
        return onnx.load(behind)
