"""Tidying of an exported graph: constants folded, what does nothing removed.

The same passes as the exporter's own (onnxscript.optimizer.optimize_ir), but for one rule: it makes a Split of two
Slices, and for that walks all nodes, and all other Slices, at every Slice, which takes minutes in a network of windows.
"""

from onnxscript import ir, optimizer, rewriter
from onnxscript.rewriter import pattern
from onnxscript.rewriter.rules import common as rules


def _same_axes(context, axes, again, **_) -> bool:
    """Whether both are known, and the same."""
    first, second = (ir.convenience.get_const_tensor(value) for value in (axes, again))
    return first is not None and second is not None and first.numpy().tolist() == second.numpy().tolist()


_squeeze_unsqueeze = pattern.RewriteRule(
    lambda op, x, axes, again: op.Squeeze(op.Unsqueeze(x, axes), again), lambda op, x, **_: op.Identity(x), _same_axes
)
_ROUNDS = 2  # folding frees nodes for the rules, rules free constants for folding
_RULES = (
    rules.add_0_rule, rules.sub_0_rule, rules.mul_by_1_rule, rules.div_by_1_rule,
    rules.dropout_zero_rule, rules.dropout_inference_rule,
    rules.two_reshapes_matmul_reshape_rule, rules.one_reshape_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule, rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule, rules.collapse_slice2_rule, rules.materialize_reshape_shape_rule,
    rules.min_min_rule, rules.max_max_rule, rules.min_max_rule, rules.max_min_rule,
    rules.successive_clip_relu_rule, rules.successive_relu_clip_rule,
    rules.successive_relu_rule, rules.successive_clip_rule,
    rules.cast_cast_rule, rules.no_op_cast_rule, rules.no_op_expand_rule, rules.no_op_transpose_rule,
    rules.flatten_to_reshape_rule, rules.reshape_reshape_rule, rules.squeeze_reshape_1d_rule,
    _squeeze_unsqueeze, rules.transpose_transpose_rule, rules.unsqueeze_unsqueeze_rule,
    rules.no_op_static_scatter_nd_rule, rules.no_op_dynamic_scatter_nd_rule,
    rules.normalize_pad_format_conv_rule, rules.fuse_pad_into_conv_rule,
    rules.fuse_batchnorm_into_conv_rule, rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.remove_optional_bias_from_conv_rule, rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)  # fmt: skip


def simplify(model: ir.Model) -> None:
    """Fold and tidy in place; what the model computes stays."""
    for _ in range(_ROUNDS):
        optimizer.fold_constants(model, onnx_shape_inference=True)
        rewriter.rewrite(model, _RULES)
    tidy = ir.passes.common
    ir.passes.Sequential(
        tidy.RemoveUnusedNodesPass(),
        tidy.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        tidy.LiftSubgraphInitializersToMainGraphPass(),
        tidy.DeduplicateInitializersPass(),
        tidy.CommonSubexpressionEliminationPass(),
        tidy.OutputFixPass(),
        tidy.NameFixPass(),
    )(model)
