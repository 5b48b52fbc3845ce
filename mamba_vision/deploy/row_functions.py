"""Layer norms and GELU as nodes of our own, each with a function of standard operators behind it.

ONNX Runtime takes three times as long for them as the kernels of our library. Without the library the function takes
the node's place: the very operators that were there before.

x, y (..., channels); weight, bias (channels).
"""

import onnx
from onnx import helper, parser

from mamba_vision.deploy.scan_function import DOMAIN

LAYER_NORM, GELU = "LayerNorm", "BiasGelu"
_BODIES = {
    LAYER_NORM: "LayerNorm <epsilon> (x, weight, bias) => (y)\n"
    "{ y = LayerNormalization <axis = -1, epsilon: float = @epsilon> (x, weight, bias) }",
    GELU: "BiasGelu (x, bias) => (y)\n{ sum = Add(x, bias)\n y = Gelu(sum) }",
}
# What gives a linear layer's result before the bias is added, also where it multiplies in 8 bits
_PRODUCTS = ("MatMul", "Gemm", "Mul")


def add_row_functions(model: onnx.ModelProto, opset: int) -> None:
    """Put our nodes in place of layer norms over channels, and of GELU of a linear layer; append their functions.

    Args:
        model: changed in place; nodes of other types than float32 stay.
        opset: version of the standard operators, that of the model.
    """
    vectors = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 1}
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = _uses(model.graph)
    gone = []
    for node in model.graph.node:
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "LayerNormalization" and len(node.output) == 1 and given.get("axis", -1) == -1:
            if len(node.input) == 3 and vectors.issuperset(node.input[1:]):
                _rename(node, LAYER_NORM, list(node.input), epsilon=given.get("epsilon", 1e-5))
        elif node.op_type == "Gelu" and given.get("approximate", b"none") == b"none":
            added = makers.get(node.input[0])
            if added is not None and added.op_type == "Add" and uses.count(added.output[0]) == 1:
                x, bias = sorted(added.input, key=vectors.__contains__)
                if bias in vectors and x in makers and makers[x].op_type in _PRODUCTS:
                    _rename(node, GELU, [x, bias])
                    gone.append(added.output[0])
    kept = [node for node in model.graph.node if not node.output or node.output[0] not in gone]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name in sorted({node.op_type for node in kept if node.domain == DOMAIN} & set(_BODIES)):
        text = f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n{_BODIES[name]}'
        model.functions.append(parser.parse_function(text))


def _rename(node: onnx.NodeProto, name: str, inputs: list[str], **attributes: float) -> None:
    node.domain, node.op_type = DOMAIN, name
    del node.input[:], node.attribute[:]
    node.input.extend(inputs)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())


def _uses(graph: onnx.GraphProto) -> list[str]:
    """Every name that the graph, and those inside it, read or give."""
    found = [value.name for value in graph.output]
    for node in graph.node:
        found += node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found += _uses(inner)
    return found
