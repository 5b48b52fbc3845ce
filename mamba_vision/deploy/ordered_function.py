"""Scans along orders for runtimes that do not know `mamba_vision::OrderedScan`: an ONNX function in standard operators.

The node stands for selective scans of the same tokens along K orders, each of which comes to every token once, added.
Everything but the recurrence is computed in the order of the tokens, and reordered by gathers of whole rows.

Legend: b batch, T tokens, E channels, K orders, R step rank, N states; o is 1, or b where orders are each one's own.
x, y (b, T, E); order (o, K, T); dt (b, T, K, R); dt_weight (K, E, R); A (K, E, N); B, C (b, T, K, N); D, dt_bias
(K, E). In the function also P parts of S steps each, about as many as they are long.
"""

import onnx
from onnx import parser

from mamba_vision.deploy import chunk_scan
from mamba_vision.deploy.scan_function import DOMAIN, softplus

OPERATOR = "OrderedScan"
INPUTS = ("x", "order", "dt", "dt_weight", "A", "B", "C", "D", "dt_bias")


def ordered_function(one_state: bool, opset: int) -> onnx.FunctionProto:
    """The function for the nodes of a model; float32.

    Args:
        one_state: whether N is 1 in all of them.
        opset: version of the standard operators, that of the model.
    """
    lines = [*_STEPS, *softplus("raw_bKTE", "s"), *_INPUTS, *(_ONE_STATE if one_state else _MANY_STATES), *_MERGED]
    text = (
        f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n'
        f"{OPERATOR} ({', '.join(INPUTS)}) => (y)\n{{\n" + "\n".join(lines) + "\n}"
    )
    return parser.parse_function(text)


_STEPS = [
    "zero = Constant <value_ints = [0]> ()",
    "one = Constant <value_ints = [1]> ()",
    "minus_one = Constant <value_ints = [-1]> ()",
    "zero_index = Constant <value_int = 0> ()",
    "one_index = Constant <value_int = 1> ()",
    "b = Shape <start = 0, end = 1> (x)",
    "T = Shape <start = 1, end = 2> (x)",
    "E = Shape <start = 2, end = 3> (x)",
    "K = Shape <start = 1, end = 2> (order)",
    "N = Shape <start = 2, end = 3> (A)",
    "T_index = Squeeze(T, zero)",
    "l = Range(zero_index, T_index, one_index)",
    "dt_bKTR = Transpose <perm = [0, 2, 1, 3]> (dt)",
    "W_KRE = Transpose <perm = [0, 2, 1]> (dt_weight)",
    "product = MatMul(dt_bKTR, W_KRE)",
    "bias_K1E = Unsqueeze(dt_bias, one)",
    "raw_bKTE = Add(product, bias_K1E)",
]
# also where each order comes to each token
_INPUTS = [
    "x_b1TE = Unsqueeze(x, one)",
    "in_bKTE = Mul(s, x_b1TE)",
    "bK = Mul(b, K)",
    "bK_index = Squeeze(bK, zero)",
    "pairs = Range(zero_index, bK_index, one_index)",
    "by_pair = Concat <axis = 0> (b, K)",
    "pairs_bK = Reshape(pairs, by_pair)",
    "rows = Concat <axis = 0> (minus_one, E)",
    "order_shape = Shape(order)",
    "steps_oKT = Expand(l, order_shape)",
    "unset = ConstantOfShape <value = int64[1] {0}> (order_shape)",
    "step_of_oKT = ScatterElements <axis = 2> (unset, order, steps_oKT)",
    "pairs_bK1 = Unsqueeze(pairs_bK, minus_one)",
]

_ONE_STATE = [
    "A_K1E = Transpose <perm = [0, 2, 1]> (A)",
    "rates = Mul(s, A_K1E)",
    "decays = Exp(rates)",
    "B_bKT1 = Transpose <perm = [0, 2, 1, 3]> (B)",
    "added = Mul(in_bKTE, B_bKT1)",
    "decay_rows = Reshape(decays, rows)",
    "added_rows = Reshape(added, rows)",
    *chunk_scan.cut("T"),
    "order_oKSP = Gather <axis = 2> (order, steps_SP)",
    "order_SPoK = Transpose <perm = [2, 3, 0, 1]> (order_oKSP)",
    "first_row_bK = Mul(pairs_bK, T)",
    "rows_SPbK = Add(order_SPoK, first_row_bK)",
    "a_SPbKE = Gather <axis = 0> (decay_rows, rows_SPbK)",
    "x_SPbKE = Gather <axis = 0> (added_rows, rows_SPbK)",
    *chunk_scan.run("a_SPbKE", "x_SPbKE", "b, K, E"),
    "h_rows = Reshape(h_all, rows)",
    *chunk_scan.place("step_of_oKT"),
    "row_of_oKT = Mul(place, bK)",
    "row_of_bKT = Add(row_of_oKT, pairs_bK1)",
    "row_of_bTK = Transpose <perm = [0, 2, 1]> (row_of_bKT)",
    "h_bTKE = Gather <axis = 0> (h_rows, row_of_bTK)",
    "y_bTKE = Mul(h_bTKE, C)",
]

_MANY_STATES = [
    "s_rows = Reshape(s, rows)",
    "in_rows = Reshape(in_bKTE, rows)",
    "order_ToK = Transpose <perm = [2, 0, 1]> (order)",
    "first_row_bK = Mul(pairs_bK, T)",
    "rows_TbK = Add(order_ToK, first_row_bK)",
    "s_TbKE = Gather <axis = 0> (s_rows, rows_TbK)",
    "x_TbKE = Gather <axis = 0> (in_rows, rows_TbK)",
    "three = Constant <value_ints = [3]> ()",
    "s_TbK1E = Unsqueeze(s_TbKE, three)",
    "x_TbK1E = Unsqueeze(x_TbKE, three)",
    # B and C have the order as an axis behind the tokens
    "K_index = Squeeze(K, zero)",
    "k = Range(zero_index, K_index, one_index)",
    "times_K = Mul(order_ToK, K)",
    "with_k = Add(times_K, k)",
    "TK = Mul(T, K)",
    "b_index = Squeeze(b, zero)",
    "elements = Range(zero_index, b_index, one_index)",
    "elements_b1 = Unsqueeze(elements, minus_one)",
    "first_token_b1 = Mul(elements_b1, TK)",
    "token_rows_TbK = Add(with_k, first_token_b1)",
    "matrix_rows = Concat <axis = 0> (minus_one, N)",
    "B_rows = Reshape(B, matrix_rows)",
    "C_rows = Reshape(C, matrix_rows)",
    "B_TbKN = Gather <axis = 0> (B_rows, token_rows_TbK)",
    "C_TbKN = Gather <axis = 0> (C_rows, token_rows_TbK)",
    "B_TbKN1 = Unsqueeze(B_TbKN, minus_one)",
    "C_TbK1N = Unsqueeze(C_TbKN, three)",
    "A_KNE = Transpose <perm = [0, 2, 1]> (A)",
    "state_shape = Concat <axis = 0> (b, K, N, E)",
    "nothing = ConstantOfShape <value = float[1] {0.0}> (state_shape)",
    """last, y_TbK1E = Scan <num_scan_inputs = 4, body = step
    (float[?, ?, ?, ?] h, float[?, ?, ?, ?] st, float[?, ?, ?, ?] xt, float[?, ?, ?, ?] Bt,
     float[?, ?, ?, ?] Ct) => (float[?, ?, ?, ?] new, float[?, ?, ?, ?] yt)
    {
        rate = Mul(st, A_KNE)
        decay = Exp(rate)
        kept = Mul(decay, h)
        added = Mul(xt, Bt)
        new = Add(kept, added)
        yt = MatMul(Ct, new)
    }> (nothing, s_TbK1E, x_TbK1E, B_TbKN1, C_TbK1N)""",
    "y_rows = Reshape(y_TbK1E, rows)",
    "row_of_oKT = Mul(step_of_oKT, bK)",
    "row_of_bKT = Add(row_of_oKT, pairs_bK1)",
    "row_of_bTK = Transpose <perm = [0, 2, 1]> (row_of_bKT)",
    "y_bTKE = Gather <axis = 0> (y_rows, row_of_bTK)",
]

_MERGED = [
    "two = Constant <value_ints = [2]> ()",
    "y_bTE = ReduceSum <keepdims = 0> (y_bTKE, two)",
    "D_E = ReduceSum <keepdims = 0> (D, zero)",
    "skip = Mul(x, D_E)",
    "y = Add(y_bTE, skip)",
]
