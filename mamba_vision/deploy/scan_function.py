"""The selective scan for runtimes that do not know it: a model-local ONNX function in standard operators.

A file holds every scan as one node `mamba_vision::TokenScan`, and behind the graph a function of that name. A
runtime that has our operator library runs the node; any other replaces it by the function, whose body is ONNX's own
`Scan`, one time step a turn.

Layouts: u, delta, z, y (b, L, D), as tokens lie in memory; A (D, N); B, C (b, L, G, N), or (b, L, N) for one group,
channel d in group d // (D / G); D, delta_bias (D,). Inside, time comes first. The state is (b, G, N, R): the long axis
contiguous.

Beside it the convolution that comes before many a scan, `mamba_vision::CausalConv`, of x (b, L, D) as well.
"""

from typing import NamedTuple

import onnx
from onnx import parser

from mamba_vision.deploy import chunk_scan

DOMAIN, OPERATOR, VERSION = "mamba_vision", "TokenScan", 2
CONVOLUTION = "CausalConv"
INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
OPTIONAL = ("D", "z", "delta_bias")


class Signature(NamedTuple):
    """Which optional inputs the nodes of a model have: a function cannot ask whether one is absent.

    Attributes:
        D, z, delta_bias: whether the input is there.
        delta_softplus: whether the step size goes through softplus.
        one_state: whether N is 1; most of a step is then done for all steps together.
    """

    D: bool
    z: bool
    delta_bias: bool
    delta_softplus: bool
    one_state: bool


def scan_function(signature: Signature, opset: int) -> onnx.FunctionProto:
    """The function for the nodes of a model; float32.

    Args:
        signature: of all these nodes.
        opset: version of the standard operators, that of the model.
    """
    lines = [*_SIZES, *_step_sizes(signature), *(_ONE_STATE if signature.one_state else _MANY_STATES)]
    result = "y_LbD"
    if signature.D:
        lines += ["skip = Mul(u_LbD, D)", f"skipped = Add({result}, skip)"]
        result = "skipped"
    if signature.z:
        lines += ["z_LbD = Transpose <perm = [1, 0, 2]> (z)", "open = Sigmoid(z_LbD)", "gate = Mul(z_LbD, open)"]
        lines += [f"gated = Mul({result}, gate)"]
        result = "gated"
    lines += [f"y = Transpose <perm = [1, 0, 2]> ({result})"]
    text = (
        f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n'
        f"{OPERATOR} <delta_softplus: int = 0> ({', '.join(INPUTS)}) => (y)\n{{\n" + "\n".join(lines) + "\n}"
    )
    return parser.parse_function(text)


def convolution_function(opset: int) -> onnx.FunctionProto:
    """SiLU of the causal convolution of each channel: y (b, L, D) of x, weight (D, W), bias (D,); float32.

    The nodes' attributes are `group`, which is D, and `pads`, which are W - 1 and 0.
    """
    return parser.parse_function(
        f"""<opset_import: ["": {opset}], domain: "{DOMAIN}">
        {CONVOLUTION} <group, pads> (x, weight, bias) => (y)
        {{
            one = Constant <value_ints = [1]> ()
            x_bDL = Transpose <perm = [0, 2, 1]> (x)
            taps = Unsqueeze(weight, one)
            convolved = Conv <group: int = @group, pads: ints = @pads> (x_bDL, taps, bias)
            open = Sigmoid(convolved)
            y_bDL = Mul(convolved, open)
            y = Transpose <perm = [0, 2, 1]> (y_bDL)
        }}"""
    )


def _step_sizes(signature: Signature) -> list[str]:
    """s, the step sizes as the recurrence wants them, and s_LbD."""
    lines, name = [], "delta"
    if signature.delta_bias:
        lines += ["biased = Add(delta, delta_bias)"]
        name = "biased"
    if signature.delta_softplus:
        lines += softplus(name, "s")
        name = "s"
    return [*lines, f"s_LbD = Transpose <perm = [1, 0, 2]> ({name})"]


def softplus(name: str, result: str) -> list[str]:
    """Lines for ln(1 + e^x), and x itself where e^x is too large; ONNX Runtime takes longer for its own Softplus."""
    return [
        "largest = Constant <value_float = 80.0> ()",
        f"small = Min({name}, largest)",
        "power = Exp(small)",
        "unit = Constant <value_float = 1.0> ()",
        "above_one = Add(power, unit)",
        "rest = Log(above_one)",
        f"{result} = Max(rest, {name})",
    ]


_SIZES = [
    "zero = Constant <value_ints = [0]> ()",
    "one = Constant <value_ints = [1]> ()",
    "minus_one = Constant <value_ints = [-1]> ()",
    "three = Constant <value_ints = [3]> ()",
    "b = Shape <start = 0, end = 1> (u)",
    "L = Shape <start = 1, end = 2> (u)",
    "D_all = Shape <start = 2, end = 3> (u)",
    "N = Shape <start = 1, end = 2> (A)",
    "by_state = Concat <axis = 0> (b, L, minus_one, N)",
    "B_bLGN = Reshape(B, by_state)",
    "C_bLGN = Reshape(C, by_state)",
    "G = Shape <start = 2, end = 3> (B_bLGN)",
    "R = Div(D_all, G)",
    "flat = Concat <axis = 0> (L, b, D_all)",
    "u_LbD = Transpose <perm = [1, 0, 2]> (u)",
    "B_LbGN = Transpose <perm = [1, 0, 2, 3]> (B_bLGN)",
    "C_LbGN = Transpose <perm = [1, 0, 2, 3]> (C_bLGN)",
]

_MANY_STATES = [
    "x_LbD = Mul(s_LbD, u_LbD)",
    "steps = Concat <axis = 0> (L, b, G, one, R)",
    "s_LbG1R = Reshape(s_LbD, steps)",
    "x_LbG1R = Reshape(x_LbD, steps)",
    "B_LbGN1 = Unsqueeze(B_LbGN, minus_one)",
    "C_LbG1N = Unsqueeze(C_LbGN, three)",
    "A_shape = Concat <axis = 0> (G, R, N)",
    "A_GRN = Reshape(A, A_shape)",
    "A_GNR = Transpose <perm = [0, 2, 1]> (A_GRN)",
    "state_shape = Concat <axis = 0> (b, G, N, R)",
    "nothing = ConstantOfShape <value = float[1] {0.0}> (state_shape)",
    """last, y_LbG1R = Scan <num_scan_inputs = 4, body = step
    (float[?, ?, ?, ?] h, float[?, ?, ?, ?] st, float[?, ?, ?, ?] xt, float[?, ?, ?, ?] Bt,
     float[?, ?, ?, ?] Ct) => (float[?, ?, ?, ?] new, float[?, ?, ?, ?] yt)
    {
        rate = Mul(st, A_GNR)
        decay = Exp(rate)
        kept = Mul(decay, h)
        added = Mul(xt, Bt)
        new = Add(kept, added)
        yt = MatMul(Ct, new)
    }> (nothing, s_LbG1R, x_LbG1R, B_LbGN1, C_LbG1N)""",
    "y_LbD = Reshape(y_LbG1R, flat)",
]

_ONE_STATE = [
    "A_line = Reshape(A, minus_one)",
    "rates = Mul(s_LbD, A_line)",
    "decays = Exp(rates)",
    "x_LbD = Mul(s_LbD, u_LbD)",
    "by_group = Concat <axis = 0> (L, b, G, R)",
    "x_LbGR = Reshape(x_LbD, by_group)",
    "added_LbGR = Mul(x_LbGR, B_LbGN)",
    "added = Reshape(added_LbGR, flat)",
    "zero_index = Constant <value_int = 0> ()",
    "one_index = Constant <value_int = 1> ()",
    *chunk_scan.cut("L"),
    "a_SPbD = Gather <axis = 0> (decays, steps_SP)",
    "x_SPbD = Gather <axis = 0> (added, steps_SP)",
    *chunk_scan.run("a_SPbD", "x_SPbD", "b, D_all"),
    "L_index = Squeeze(L, zero)",
    "l = Range(zero_index, L_index, one_index)",
    *chunk_scan.place("l"),
    "rows = Concat <axis = 0> (minus_one, b, G, R)",
    "h_rows = Reshape(h_all, rows)",
    "h_LbGR = Gather <axis = 0> (h_rows, place)",
    "y_LbGR = Mul(h_LbGR, C_LbGN)",
    "y_LbD = Reshape(y_LbGR, flat)",
]
