"""add_norm: random shapes and dtypes against the definition, every gradient; PyTorch's norms; errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import compare, relative_error

from mamba_vision.kernels import add_norm, norm_tokens, use_backend


def test_random_shapes(backend):
    @settings(max_examples=backend.examples, deadline=None, database=None, derandomize=True)
    @given(
        shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
        channels=st.integers(1, 70),
        norm=st.sampled_from(["rms", "layer"]),
        dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    )
    def check(shape, channels, norm, dtype, flags):
        residual, weight, bias = flags
        torch.manual_seed(0)

        def normal(*size, wanted=True):
            return torch.randn(size, dtype=torch.float64) if wanted else None

        inputs = {
            "hidden": normal(*shape, channels),
            "residual": normal(*shape, channels, wanted=residual),
            "weight": normal(channels, wanted=weight),
            "bias": normal(channels, wanted=bias),
        }
        # rounding of a mean of one or two values says nothing about a norm
        tolerance = 0.2 if channels < 3 and dtype == torch.bfloat16 else None

        def op(**k):
            return add_norm(
                **k, norm=norm, eps=1e-2, residual_dtype=torch.promote_types(k["hidden"].dtype, torch.float32)
            )

        compare(op, inputs, backend.device, dtype, ("residual", "weight", "bias"), tolerance)

    check()


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_is_the_norm_of_pytorch(norm, backend):
    x = torch.randn(3, 7, 96, device=backend.device)[:, ::2].requires_grad_()  # rows apart
    weight, bias = (torch.randn(96, device=backend.device, requires_grad=True) for _ in range(2))
    bias = bias if norm == "layer" else None
    got = norm_tokens(x, weight, bias, eps=1e-5, norm=norm)
    want = F.layer_norm(x, (96,), weight, bias) if norm == "layer" else F.rms_norm(x, (96,), weight, 1e-5)
    torch.testing.assert_close(got, want)
    leaves = [t for t in (x, weight, bias) if t is not None]
    grad = torch.randn_like(want)
    for one, other in zip(torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, leaves, grad)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_residual_stays_wide_and_the_result_narrow(backend):
    hidden = torch.randn(4, 64, device=backend.device, dtype=torch.bfloat16)
    residual = torch.randn(4, 64, device=backend.device)
    weight = torch.randn(64, device=backend.device)
    normed, total = add_norm(hidden, residual, weight, out_dtype=torch.bfloat16)
    assert (normed.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(total, residual + hidden)
    wide = add_norm(hidden, residual, weight)[0]
    torch.testing.assert_close(normed, wide.to(torch.bfloat16))  # the interpreter rounds in its own way
    first, same = add_norm(hidden, None, weight, residual_dtype=torch.float32)
    assert torch.equal(same, hidden.float())
    assert relative_error(first, F.rms_norm(hidden.float(), (64,), weight, 1e-5)) < 1e-6


def test_gradcheck():
    hidden, residual = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for norm in ("rms", "layer"):
        with use_backend("portable"):
            torch.autograd.gradcheck(lambda *t, norm=norm: add_norm(*t, norm=norm), (hidden, residual, weight, bias))
            torch.autograd.gradcheck(lambda h, norm=norm: add_norm(h, norm=norm), (hidden,))


def test_compiles_without_breaks():
    hidden, residual = torch.randn(4, 8), torch.randn(4, 8)
    with use_backend("portable"):
        compiled = torch.compile(lambda h, r: add_norm(h, r), fullgraph=True, backend="aot_eager")
        for got, want in zip(compiled(hidden, residual), add_norm(hidden, residual)):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual": torch.ones(2, 4)}, r"residual has shape \(2, 4\), expected \(2, 3\)"),
        ({"weight": torch.ones(2)}, r"weight has shape \(2,\), expected \(3,\)"),
        ({"hidden": torch.ones(2, 3).int()}, "hidden has dtype torch.int32"),
        ({"norm": "batch"}, "norm is 'batch', expected one of 'rms', 'layer'"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        add_norm(**{"hidden": torch.ones(2, 3), **change})
