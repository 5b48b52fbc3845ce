"""From a PyTorch module to an ONNX graph whose scans are single nodes, with a function behind them (scan_function)."""

import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO

import onnx
import sympy
import torch
from onnx import helper
from onnxscript import opset20 as op
from onnxscript import values
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from mamba_vision.deploy import norm_function, ordered_function
from mamba_vision.deploy.scan_function import CONVOLUTION as CAUSAL_CONVOLUTION
from mamba_vision.deploy.scan_function import DOMAIN, INPUTS, OPERATOR, OPTIONAL, VERSION
from mamba_vision.deploy.simplify import simplify
from mamba_vision.kernels.ordered_scan.exported import OrderWatch, told_of_orders

SCAN = torch.ops.mamba_vision.selective_scan.default
ORDERED_SCAN = torch.ops.mamba_vision.ordered_scan.default
CONVOLUTION = torch.ops.mamba_vision.causal_conv1d.default


class ExportError(ValueError):
    """A model that cannot be exported as asked; the message says what stands in the way, and what can be done."""


def trace(
    module: nn.Module, inputs: Sequence[Tensor], dynamic: Sequence[Mapping[int, str]], orders: OrderWatch
) -> ExportedProgram:
    """torch.export of a module with free sizes.

    Args:
        module: in evaluation mode.
        inputs: that it is traced with; no free size may be 1, which would be taken for a constant.
        dynamic: one an input, axis to name of the sizes that stay free.
        orders: what a run of the module showed of its scan orders.

    Raises:
        ExportError: the module fixes a size that was to be free, or cannot be traced.
    """
    shapes = tuple(dict.fromkeys(axes, Dim.AUTO) for axes in dynamic)
    try:
        with torch.no_grad(), told_of_orders(orders), sdpa_kernel(SDPBackend.MATH), _quietly():
            program = torch.export.export(module, tuple(inputs), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:
        if any(dynamic):
            free = ", ".join(_names(dynamic))
            raise ExportError(f"the model cannot be exported with free {free}: {_reason(error)}") from error
        raise ExportError(f"the model cannot be exported: {_reason(error)}") from error
    for node in program.graph.nodes:
        if node.target == SCAN and any(user.args[1] and user.users for user in node.users):
            raise ExportError("the model uses the last state of a scan, which the ONNX node does not give")
    _check_free(program, dynamic)
    return program


def to_onnx(
    program: ExportedProgram,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic: Sequence[Mapping[int, str]],
    opset: int,
) -> onnx.ModelProto:
    """The program as ONNX, scans as nodes `mamba_vision::TokenScan`, without their function.

    Free sizes bear the names of `dynamic`.

    Raises:
        ExportError: PyTorch cannot write the program as ONNX.
    """
    table = {SCAN: _scan, ORDERED_SCAN: _ordered_scan, CONVOLUTION: _convolution, operator.floordiv: _floor_division,
             torch.ops.aten.where.self: _where, torch.ops.aten.sort.stable: _sort,
             torch.ops.aten.group_norm.default: _group_norm,
             torch.ops.aten.instance_norm.default: _instance_norm}  # fmt: skip
    _register_schema()
    try:
        # Attention as products here and above: fused kernels lay out results as ONNX's do not, and views of them fail.
        with sdpa_kernel(SDPBackend.MATH), _quietly():
            exported = torch.onnx.export(
                program, dynamo=True, custom_translation_table=table, opset_version=opset, optimize=False,
                verbose=False, input_names=list(input_names), output_names=list(output_names),
            )  # fmt: skip
            simplify(exported.model)
    except Exception as error:
        raise ExportError(f"cannot be written as ONNX: {_reason(error)}") from error
    model = exported.model_proto
    _rename_sizes(model, dynamic)
    for value in (*model.graph.input, *model.graph.output, *model.graph.node):
        del value.metadata_props[:]  # traces of the exporter, with the names of files
    return model


def _check_free(program: ExportedProgram, dynamic: Sequence[Mapping[int, str]]) -> None:
    """Raise ExportError where a size that was to be free has become a number."""
    user = program.graph_signature.user_inputs
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in user]
    for value, axes in zip(values, dynamic):
        for axis, name in axes.items():
            size = value.shape[axis]
            if isinstance(size, int) or not isinstance(size.node.expr, sympy.Symbol | sympy.Mul):
                raise ExportError(f"the network fixes {name}, to {size}; export with fewer free sizes")


def _scan(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, initial_state=None, delta_softplus=False, out_dtype=None,
    keep=False, backend="",
):  # fmt: skip
    """The three results of the operator; those that nobody reads are dropped again."""
    if initial_state is not None:
        raise ExportError("a scan with an initial state has no ONNX node: the node starts from zero")
    if len(B.shape) != 4 or len(C.shape) != 4:
        raise ExportError("a scan with B or C constant over time has no ONNX node: expand them to (b, G, N, L)")
    y = _node(OPERATOR)(
        _turned(u), _turned(delta), A, _by_steps(B), _by_steps(C), D, None if z is None else _turned(z), delta_bias,
        delta_softplus=int(delta_softplus),
    )  # fmt: skip
    return _turned(y), op.Identity(A), op.Identity(A)


def _turned(x_bDL):
    """(b, D, L) as (b, L, D), and back; tokens lie that way in memory, so that most of these cancel with others."""
    return op.Transpose(x_bDL, perm=[0, 2, 1])


def _by_steps(M_bGNL):
    """(b, G, N, L) as (b, L, G, N), or (b, L, N) where G is 1."""
    if M_bGNL.shape[1] == 1:
        return _turned(op.Squeeze(M_bGNL, op.Constant(value_ints=[1])))
    return op.Transpose(M_bGNL, perm=[0, 3, 1, 2])


def _ordered_scan(x, order, dt, dt_weight, A, B, C, D, dt_bias, *others):
    """As `exported.as_one_operator` calls it: the options are those of the node."""
    if len(order.shape) == 2:
        order = op.Unsqueeze(order, op.Constant(value_ints=[0]))
    node = _node(ordered_function.OPERATOR)
    return node(x, order, dt, dt_weight, A, B, C, D, dt_bias), op.Identity(A)


def _convolution(x, weight, bias=None, initial_states=None, seq_idx=None, silu=False, backend=""):
    if initial_states is not None or seq_idx is not None:
        raise ExportError("a causal convolution with initial_states or seq_idx cannot be exported")
    channels, width = (int(side) for side in weight.shape)
    if silu:
        bias = op.Constant(value_floats=[0.0] * channels) if bias is None else bias
        y = _node(CAUSAL_CONVOLUTION)(_turned(x), weight, bias, group=channels, pads=[width - 1, 0])
        return _turned(y), op.Identity(weight)
    taps = op.Unsqueeze(weight, op.Constant(value_ints=[1]))
    return op.Conv(x, taps, bias, group=channels, pads=[width - 1, 0]), op.Identity(weight)


def _floor_division(a, b):
    """Python's division of sizes, downwards: ONNX's own goes towards zero, and sizes are rounded up by -(-a // b)."""
    return op.Div(op.Sub(a, op.Mod(a, b)), b)


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    """Our function's node: ONNX Runtime's own norms lose digits over many voxels."""
    channels = int(x.shape[1])
    weight = op.Constant(value_floats=[1.0] * channels) if weight is None else weight
    bias = op.Constant(value_floats=[0.0] * channels) if bias is None else bias
    axis = op.Constant(value_ints=[2])
    flat = len(x.shape) == 3  # the function wants rows
    y = _node(norm_function.OPERATOR)(
        op.Unsqueeze(x, axis) if flat else x, weight, bias, groups=int(num_groups), epsilon=float(eps)
    )
    return op.Squeeze(y, axis) if flat else y


def _instance_norm(
    x, weight=None, bias=None, running_mean=None, running_var=None, use_input_stats=True, momentum=0.1, eps=1e-5,
    cudnn_enabled=True,
):  # fmt: skip
    if not use_input_stats:
        raise ExportError("an instance norm with running statistics cannot be exported: use a batch norm")
    return _group_norm(x, x.shape[1], weight, bias, eps)


def _sort(x, stable=None, dim=-1, descending=False):
    """TopK of all: among equals the first comes first, so that it is stable."""
    axis = op.Constant(value_ints=[dim])
    return op.TopK(x, op.Gather(op.Shape(x), axis), axis=dim, largest=int(descending), sorted=1)


def _where(condition, a, b):
    """ONNX Runtime chooses among numbers only; truth values are combined."""
    if a.dtype is not None and a.dtype.name == "BOOL":
        return op.Or(op.And(condition, a), op.And(op.Not(condition), b))
    return op.Where(condition, a, b)


def _node(name: str) -> values.Op:
    return values.Op(values.Opset(DOMAIN, VERSION), name, onnx.defs.get_schema(name, VERSION, DOMAIN))


def _register_schema() -> None:
    """Tell onnx of the operators, once a process: the exporter refuses nodes without a schema."""
    if onnx.defs.has(OPERATOR, VERSION, DOMAIN):
        return
    kind = onnx.defs.OpSchema
    option = kind.FormalParameterOption
    inputs = [
        kind.FormalParameter(name, "T", param_option=option.Optional if name in OPTIONAL else option.Single)
        for name in INPUTS
    ]
    ordered = [kind.FormalParameter(name, "I" if name == "order" else "T") for name in ordered_function.INPUTS]
    convolution = [kind.FormalParameter(name, "T") for name in ("x", "weight", "bias")]
    norm = [kind.FormalParameter(name, "T") for name in norm_function.INPUTS]
    floats, numbers = ("T", ["tensor(float)"], ""), ("I", ["tensor(int64)"], "")
    onnx.defs.register_schema(
        kind(
            OPERATOR, DOMAIN, VERSION, inputs=inputs, outputs=[kind.FormalParameter("y", "T")],
            type_constraints=[floats],
            attributes=[kind.Attribute("delta_softplus", helper.make_attribute("delta_softplus", 0), "")],
        )
    )  # fmt: skip
    onnx.defs.register_schema(
        kind(
            ordered_function.OPERATOR, DOMAIN, VERSION, inputs=ordered, outputs=[kind.FormalParameter("y", "T")],
            type_constraints=[floats, numbers],
        )
    )  # fmt: skip
    onnx.defs.register_schema(
        kind(
            CAUSAL_CONVOLUTION, DOMAIN, VERSION, inputs=convolution, outputs=[kind.FormalParameter("y", "T")],
            type_constraints=[floats],
            attributes=[
                kind.Attribute("group", kind.AttrType.INT, required=True),
                kind.Attribute("pads", kind.AttrType.INTS, required=True),
            ],
        )
    )  # fmt: skip
    onnx.defs.register_schema(
        kind(
            norm_function.OPERATOR, DOMAIN, VERSION, inputs=norm, outputs=[kind.FormalParameter("y", "T")],
            type_constraints=[floats],
            attributes=[
                kind.Attribute("groups", kind.AttrType.INT, required=True),
                kind.Attribute("epsilon", kind.AttrType.FLOAT, required=True),
            ],
        )
    )  # fmt: skip


def _rename_sizes(model: onnx.ModelProto, dynamic: Sequence[Mapping[int, str]]) -> None:
    """Names such as `height` in place of the exporter's symbols, also inside expressions of them."""
    names = {}
    for value, axes in zip(model.graph.input, dynamic):
        for axis, name in axes.items():
            symbol = value.type.tensor_type.shape.dim[axis].dim_param
            if symbol:
                names.setdefault(symbol, name)
    for value in model.graph.input:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]
    for value in model.graph.output:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]
            elif size.dim_param:  # an expression that would only confuse
                size.dim_param = f"{value.name}_{axis}"


def _names(dynamic: Sequence[Mapping[int, str]]) -> list[str]:
    return list(dict.fromkeys(name for axes in dynamic for name in axes.values()))


def _reason(error: BaseException) -> str:
    """What went wrong, in one line: the innermost cause's first lines."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400] or type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' progress and warnings about their own ways."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
