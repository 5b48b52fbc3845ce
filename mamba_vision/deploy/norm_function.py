"""Group and instance norm for exported graphs: an ONNX function whose sums stay exact over millions of voxels.

ONNX Runtime's InstanceNormalization adds up a channel in one go in float32, and is off by 2e-5 behind 65,536 values, by
1.6e-4 behind 128 x 128 x 128. Here rows are added first, then the rows' means, and squares are of what the mean was
taken from: 1e-6 at any size, for a few passes over the memory more. Where our library of operators is there, its kernel
takes the place of the function (kernels/native/norm_lanes.hpp): as exact, and faster than ONNX Runtime's own norm.

x, y (B, C, *S), of four axes or more; weight, bias (C,).
"""

import onnx
from onnx import parser

from mamba_vision.deploy.scan_function import DOMAIN

OPERATOR = "GroupNorm"
INPUTS = ("x", "weight", "bias")


def norm_function(opset: int) -> onnx.FunctionProto:
    """The function for the nodes of a model, whose attributes are `groups` and `epsilon`; float32.

    Args:
        opset: version of the standard operators, that of the model.
    """
    lines = [*_SIZES, *_group_means("x", "mean_BG1"), *_CENTRED, *_group_means("square", "variance_BG1"), *_SCALED]
    text = (
        f'<opset_import: ["": {opset}], domain: "{DOMAIN}">\n'
        f"{OPERATOR} <groups, epsilon> ({', '.join(INPUTS)}) => (y)\n{{\n" + "\n".join(lines) + "\n}"
    )
    return parser.parse_function(text)


def _group_means(values: str, result: str) -> list[str]:
    """The mean of each group, (B, G, 1): along rows (unless they are their means), along columns, and of the rest."""
    rows = f"{values}_rows"
    first = [] if values == "square" else [f"{rows} = ReduceMean({values}, last)"]
    return [
        *first,
        f"{values}_planes = ReduceMean({rows}, last_but_one)",
        f"{values}_groups = Reshape({values}_planes, by_group)",
        f"{result} = ReduceMean({values}_groups, last)",
    ]


_SIZES = [
    "last = Constant <value_ints = [-1]> ()",
    "last_but_one = Constant <value_ints = [-2]> ()",
    "zero = Constant <value_ints = [0]> ()",
    "one = Constant <value_ints = [1]> ()",
    "G_index = Constant <value_int: int = @groups> ()",
    "G = Unsqueeze(G_index, zero)",
    "by_group = Concat <axis = 0> (zero, G, last)",  # 0: the batch as it is
    "sides = Shape(x)",
    "C = Shape <start = 1, end = 2> (x)",
    "width = Shape <start = -1> (x)",
    "per_group = Div(C, G)",
    "spatial = Shape <start = 2> (x)",
    "axes = Shape(spatial)",
    "flat = ConstantOfShape <value = int64[1] {1}> (axes)",
    "by_channel = Concat <axis = 0> (zero, C, flat)",
    "one_channel = Concat <axis = 0> (C, flat)",
]

_CENTRED = [
    "x_BGL = Reshape(x, by_group)",
    "centred_BGL = Sub(x_BGL, mean_BG1)",
    "centred = Reshape(centred_BGL, sides)",
    "square_sums = ReduceSumSquare(centred, last)",
    "width_float = Cast <to = 1> (width)",
    "square_rows = Div(square_sums, width_float)",
]

_SCALED = [
    "least = Constant <value_float: float = @epsilon> ()",
    "kept_apart = Add(variance_BG1, least)",
    "deviation_BG1 = Sqrt(kept_apart)",
    "within_group = Concat <axis = 0> (one, one, per_group)",
    "deviation_BGC = Expand(deviation_BG1, within_group)",
    "deviation = Reshape(deviation_BGC, by_channel)",
    "weight_C = Reshape(weight, one_channel)",
    "bias_C = Reshape(bias, one_channel)",
    "factor = Div(weight_C, deviation)",
    "scaled = Mul(centred, factor)",
    "y = Add(scaled, bias_C)",
]
