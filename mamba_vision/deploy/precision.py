"""Smaller ONNX graphs: weights in half precision or in 8 bits, the scans as they are.

Both are done before the scans' function is appended (`finish.add_scan_function`): converters of whole files know
nothing of functions.
"""

import logging
import tempfile
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

    # it casts what operators in float32 take where it knows the type, which the exporter's value infos say
    model = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPERATORS],
    )  # fmt: skip
    made: set[str] = set()  # a weight that two scans share is cast once for each, under one name
    nodes = [node for node in model.graph.node if not made.issuperset(node.output) and not made.update(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    OnnxModel.graph_topological_sort(model.graph)  # casts are put at the end
    return model


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
