"""instance_norm: random shapes, layouts and dtypes against the definition, every gradient; larger planes; errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import compare, relative_error

from mamba_vision.kernels import instance_norm
from mamba_vision.kernels.instance_norm.reference import instance_norm_reference


def test_random_shapes(backend):
    @settings(max_examples=backend.examples, deadline=None, database=None, derandomize=True)
    @given(
        sizes=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(4, 40), st.integers(1, 9)),
        three=st.booleans(),
        last=st.booleans(),
        slope=st.sampled_from([None, 0.0, 0.01]),
        dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    )
    def check(sizes, three, last, slope, dtype, flags):
        batch, channels, *grid = sizes
        residual, weight, bias = flags
        grid = [*grid, 2] if three else grid
        torch.manual_seed(0)

        def normal(*size, wanted=True):
            return torch.randn(size, dtype=torch.float64) if wanted else None

        inputs = {
            "x": normal(batch, channels, *grid) + 3,
            "weight": normal(channels, wanted=weight),
            "bias": normal(channels, wanted=bias),
            "residual": normal(batch, channels, *grid, wanted=residual),
        }

        def op(x, **others):
            if last:
                x = x.movedim(1, -1).contiguous().movedim(-1, 1)
            return instance_norm(x, **others, slope=slope, eps=1e-2)

        # the sign of a sum near 0 is a matter of rounding, and with it which slope a gradient has
        tolerance = {torch.float32: 2e-4, torch.bfloat16: 6e-2}.get(dtype)
        compare(op, inputs, backend.device, dtype, ("weight", "bias"), tolerance)

    check()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(2, 48, 33, 34, 35), (1, 96, 20, 40, 30), (3, 5, 300, 301)])
def test_large_planes(shape, last, backend):
    if backend.device == "cpu":
        shape = (*shape[:2], 5, 67)
    x = torch.randn(shape, device=backend.device) * 2 + 5
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    x.requires_grad_()
    weight, bias = (torch.randn(shape[1], device=backend.device, requires_grad=True) for _ in range(2))
    residual = torch.randn_like(x, requires_grad=True)
    got = instance_norm(x, weight, bias, residual, slope=0.01)
    total = instance_norm_reference(x.double(), weight, bias, residual, 1e-5, None)
    want = torch.where(got > 0, total, 0.01 * total)  # the slope at sums that round to either side of 0 is anybody's
    assert backend.name != "triton" or got.stride() == x.stride()
    assert relative_error(got, want) < 1e-6
    grad = torch.randn_like(x)
    leaves = (x, weight, bias, residual)
    pairs = zip(torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, leaves, grad.double()), strict=True)
    for one, other in pairs:
        assert relative_error(one, other) < 2e-5
    with torch.no_grad():
        kept = x.clone()
        over = instance_norm(kept, weight, bias, residual, slope=0.01, overwrite=True)
    assert torch.equal(over, got)


def test_errors():
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\), expected \(batch, channels, \*spatial\)"):
        instance_norm(x[:, :, 0, 0])
    with pytest.raises(ValueError, match="expected more than one value a channel"):
        instance_norm(x[:, :, :1, :1])
    with pytest.raises(ValueError, match="residual"):
        instance_norm(x, residual=x[:1])
    with pytest.raises(ValueError, match=r"residual has dtype torch.float64, expected that of x"):
        instance_norm(x, residual=x.double())
    with pytest.raises(ValueError, match="weight"):
        instance_norm(x, torch.ones(4))
    with pytest.raises(ValueError, match="slope is 2, expected None or a number of 0"):
        instance_norm(x, slope=2)
