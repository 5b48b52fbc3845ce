"""Finishing an ONNX graph: one form for all its scan nodes, their function behind the graph, and the checks."""

import onnx
from onnx import helper

from mamba_vision.deploy import norm_function, ordered_function
from mamba_vision.deploy.row_functions import add_row_functions
from mamba_vision.deploy.scan_function import (
    CONVOLUTION,
    DOMAIN,
    INPUTS,
    OPERATOR,
    VERSION,
    Signature,
    convolution_function,
    scan_function,
)


def add_scan_function(model: onnx.ModelProto) -> None:
    """Append the functions for the model's nodes of scans, norms and GELU; plain scans get one signature before.

    A model without such nodes gets none. The exporter's shapes of inner values are dropped, as they bear its own names.
    """
    del model.graph.value_info[:]
    _add_plain(model)
    _add_ordered(model)
    if any((node.domain, node.op_type) == (DOMAIN, CONVOLUTION) for node in model.graph.node):
        model.functions.append(convolution_function(_opset(model)))
    if any((node.domain, node.op_type) == (DOMAIN, norm_function.OPERATOR) for node in model.graph.node):
        model.functions.append(norm_function.norm_function(_opset(model)))
    add_row_functions(model, _opset(model))
    if model.functions and not any(one.domain == DOMAIN for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def _add_ordered(model: onnx.ModelProto) -> None:
    ordered = ordered_function.OPERATOR
    nodes = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, ordered)]
    if nodes:
        one_state = {_states(model, node.input[4]) for node in nodes} == {1}
        model.functions.append(ordered_function.ordered_function(one_state, _opset(model)))


def _add_plain(model: onnx.ModelProto) -> None:
    nodes = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, OPERATOR)]
    if not nodes:
        return
    signatures = {_signature(node) for node in nodes}
    if len(signatures) > 1:
        _make_alike(model, nodes)
        signatures = {_signature(node) for node in nodes}
    (present,) = signatures
    states = {_states(model, node.input[2]) for node in nodes}
    model.functions.append(scan_function(Signature(*present, one_state=states == {1}), _opset(model)))


def _opset(model: onnx.ModelProto) -> int:
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


def check_model(model: onnx.ModelProto) -> None:
    """Raise onnx.checker.ValidationError or onnx.shape_inference.InferenceError for a file that breaks the standard."""
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def _signature(node: onnx.NodeProto) -> tuple[bool, bool, bool, bool]:
    """Whether D, z and delta_bias are there, and delta_softplus."""
    given = [*node.input, *[""] * len(INPUTS)]
    softplus = any(one.name == "delta_softplus" and one.i for one in node.attribute)
    return bool(given[5]), bool(given[6]), bool(given[7]), softplus


def _states(model: onnx.ModelProto, rates: str) -> int | None:
    """N of a scan, the last side of its A, where the graph says."""
    for tensor in model.graph.initializer:
        if tensor.name == rates:
            return tensor.dims[-1]
    return None


def _make_alike(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Gates and softplus that not all nodes have go outside; missing D and delta_bias become zeros."""
    all_softplus = all(_signature(node)[3] for node in nodes)
    any_skip, any_bias = (any(_signature(node)[i] for node in nodes) for i in (0, 2))
    before: dict[str, list[onnx.NodeProto]] = {}
    behind: dict[str, list[onnx.NodeProto]] = {}
    for number, node in enumerate(nodes):
        given = [*node.input, *[""] * (len(INPUTS) - len(node.input))]
        u, delta, A, B, C, D, z, bias = given
        name = f"scan_{number}"
        steps = []
        if not all_softplus:
            if bias:
                steps += [_node("Add", [delta, bias], f"{name}_biased")]
                delta, bias = f"{name}_biased", ""
            if _signature(node)[3]:
                steps += [_node("Softplus", [delta], f"{name}_steps")]
                delta = f"{name}_steps"
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("delta_softplus", 0))
        elif any_bias and not bias:
            bias = _zeros(steps, A, f"{name}_no_bias")
        if any_skip and not D:
            D = _zeros(steps, A, f"{name}_no_skip")
        before[node.output[0]] = steps
        if z and not all(_signature(one)[1] for one in nodes):
            result, node.output[0] = node.output[0], f"{name}_open"
            before[node.output[0]] = before.pop(result)
            behind[node.output[0]] = [
                _node("Sigmoid", [z], f"{name}_sigmoid"),
                _node("Mul", [z, f"{name}_sigmoid"], f"{name}_gate"),
                _node("Mul", [node.output[0], f"{name}_gate"], result),
            ]
            z = ""
        given = [u, delta, A, B, C, D, z, bias]
        while not given[-1]:
            given.pop()
        del node.input[:]
        node.input.extend(given)
    every = []
    for node in model.graph.node:
        key = node.output[0] if node.output else ""
        every += [*before.get(key, ()), node, *behind.get(key, ())]
    del model.graph.node[:]
    model.graph.node.extend(every)


def _zeros(steps: list[onnx.NodeProto], A: str, name: str) -> str:
    """A vector of zeros, one a channel of A (channels, states)."""
    steps.append(helper.make_node("Shape", [A], [f"{name}_size"], start=0, end=1))
    steps.append(_node("ConstantOfShape", [f"{name}_size"], name))  # of zeros in float32, unless told otherwise
    return name


def _node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output)
