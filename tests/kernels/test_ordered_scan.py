"""ordered_scan: against the definition, against scans of copies made by hand, orders of every kind, errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import compare

from mamba_vision.kernels import causal_conv1d, ordered_conv1d, ordered_scan, selective_scan, use_backend

PARAMETERS = ("A", "D", "dt_bias", "conv_weight", "conv_bias")


def op(conv_weight=None, conv_bias=None, **inputs):
    conv = None if conv_weight is None else (conv_weight, conv_bias)
    return ordered_scan(**inputs, conv=conv)


def ordered_inputs(
    batch=2, tokens=11, channels=6, K=3, L=None, state=4, rank=2, width=0, z=True, parameters=True, rows="steps",
    order="permutation", batched=False,
):  # fmt: skip
    """Float64 inputs; rank 0 is full rank, width 0 no convolution; order "permutation" or "any" (repeats, gaps, -1)."""

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64)

    L = tokens if L is None or order == "permutation" else L
    lead = (batch, K) if batched else (K,)
    if order == "permutation":
        order = torch.rand(*lead, L).argsort(-1).int()
    else:
        order = torch.randint(-1, tokens, (*lead, L))
    where = (batch, K, L) if rows == "steps" else (batch, tokens, K)
    return {
        "x": normal(batch, tokens, channels),
        "order": order,
        "dt": normal(*where, rank or channels),
        "dt_weight": normal(K, channels, rank) * 0.5 if rank else None,
        "A": -torch.rand(K, channels, state, dtype=torch.float64) * 3,
        "B": normal(*where, state),
        "C": normal(*where, state),
        "D": normal(K, channels) if parameters else None,
        "dt_bias": normal(K, channels) - 1 if parameters else None,
        "z": normal(batch, tokens, channels) if z else None,
        "conv_weight": normal(K, channels, width) if width else None,
        "conv_bias": normal(K, channels) if width and parameters else None,
    }


def by_hand(x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias):
    """As published code does it: a copy of the tokens per direction, a scan each, back by the inverse order, summed."""
    total = 0
    for k, path in enumerate(order.long()):
        u = x[:, path].transpose(1, 2)
        u = causal_conv1d(u, conv_weight[k], conv_bias[k], "silu")
        delta = (dt[:, k] @ dt_weight[k].T).transpose(1, 2)
        b, c = B[:, k].transpose(1, 2), C[:, k].transpose(1, 2)
        y = selective_scan(u, delta, A[k], b, c, D[k], delta_bias=dt_bias[k], delta_softplus=True).transpose(1, 2)
        total = total + y[:, path.argsort()]
    return total * F.silu(z)


def test_definition_equals_scans_of_copies():
    inputs = ordered_inputs(width=4)
    with use_backend("reference"):
        torch.testing.assert_close(op(**inputs), by_hand(**inputs))


def test_random_shapes(backend):
    @settings(max_examples=backend.examples, deadline=None, database=None, derandomize=True)
    @given(
        batch=st.integers(0, 2),
        tokens=st.integers(1, 12),
        channels=st.integers(1, 9),
        K=st.integers(1, 4),
        L=st.sampled_from([1, 5, 16, 21]),
        state=st.sampled_from([1, 4, 16]),
        rank=st.integers(0, 3),
        width=st.sampled_from([0, 1, 4]),
        rows=st.sampled_from(["steps", "tokens"]),
        merge=st.sampled_from(["sum", "none"]),
        flags=st.tuples(*[st.booleans()] * 4),
    )
    def check(batch, tokens, channels, K, L, state, rank, width, rows, merge, flags):
        z, parameters, permutation, batched = flags
        torch.manual_seed(0)
        order = "permutation" if permutation else "any"
        inputs = ordered_inputs(batch, tokens, channels, K, L, state, rank, width, z, parameters, rows, order, batched)
        compare(lambda **k: op(**k, rows=rows, merge=merge), inputs, backend.device, parameters=PARAMETERS)

    check()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtypes(dtype, backend):
    inputs = ordered_inputs(width=4)
    compare(op, inputs, backend.device, dtype, PARAMETERS)


def test_without_softplus(backend):
    inputs = ordered_inputs(rank=0, parameters=False)
    inputs["dt"] = inputs["dt"].abs() * 0.2
    compare(lambda **k: op(**k, delta_softplus=False), inputs, backend.device, parameters=PARAMETERS)


def test_gradcheck():
    inputs = ordered_inputs(1, 4, 2, 2, 5, 2, 1, 2, order="any")
    order = inputs.pop("order")
    tensors = [v.requires_grad_() for v in inputs.values()]
    with use_backend("portable"):
        torch.autograd.gradcheck(lambda *t: op(order=order, **dict(zip(inputs, t))), tensors, fast_mode=True)


def test_zero_token_passes_the_state_and_drops_its_output(backend):
    """A step at -1 decays the state by its own step size, adds nothing and is seen nowhere."""
    inputs = {k: v if v is None else v.to(backend.device) for k, v in ordered_inputs(K=1, tokens=4, z=False).items()}
    order = torch.tensor([[2, -1, 0]], device=backend.device)
    rows = {k: inputs[k][:, :, :3] for k in ("dt", "B", "C")}
    y = op(**{**inputs, **rows, "order": order})
    assert not y[:, [1, 3]].any()
    x = torch.cat([inputs["x"], torch.zeros_like(inputs["x"][:, :1])], dim=1)
    padded = op(**{**inputs, **rows, "x": x, "order": torch.tensor([[2, 4, 0]], device=backend.device)})
    torch.testing.assert_close(y, padded[:, :4])


def test_repeated_tokens_add_up_and_merge_none_keeps_orders_apart(backend):
    inputs = ordered_inputs(order="any", L=30, tokens=5)
    inputs = {k: v if v is None else v.to(backend.device) for k, v in inputs.items()}
    apart = op(**inputs, merge="none")
    assert apart.shape == (2, 3, 5, 6)
    torch.testing.assert_close(apart.sum(1), op(**inputs))


@pytest.mark.parametrize("width", [1, 4, 7])
def test_ordered_convolution_is_what_the_scan_reads(backend, width):
    inputs = ordered_inputs(width=width, K=2)
    names = ("x", "order", "conv_weight", "conv_bias")
    given = [inputs[name].to(backend.device) for name in names]
    given = [t.float() if t.is_floating_point() else t for t in given]
    x, order, weight, bias = (t.requires_grad_() if t.is_floating_point() else t for t in given)
    taken = ordered_conv1d(x, order, weight, bias)
    assert taken.shape == (2, 2, 11, 6)
    want = []
    with use_backend("reference"):
        for k in range(2):
            u = x[:, order[k].long()].transpose(1, 2)
            want.append(causal_conv1d(u, weight[k], bias[k], "silu").transpose(1, 2))
    want = torch.stack(want, 1)
    torch.testing.assert_close(taken, want)
    grad = torch.randn_like(want)
    for got, exact in zip(*(torch.autograd.grad(t, (x, weight, bias), grad) for t in (taken, want))):
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(2, 3)}, r"x has shape \(2, 3\), expected \(batch, tokens, channels\)"),
        ({"order": torch.zeros(2, 4)}, r"order has dtype torch.float32"),
        ({"order": torch.zeros(4).int()}, r"order has shape \(4,\)"),
        ({"order": torch.zeros(3, 2, 4).int()}, r"order has shape \(3, 2, 4\), a batch of 3, but x \(2, 5, 6\)"),
        ({"A": -torch.ones(3, 6, 1)}, r"A has shape \(3, 6, 1\), expected \(2, 6, state\)"),
        ({"B": torch.ones(2, 2, 5, 1)}, r"B has shape \(2, 2, 5, 1\), expected \(2, 2, 4, 1\)"),
        ({"rows": "tokens"}, r"B has shape \(2, 2, 4, 1\), expected \(2, 5, 2, 1\): one row a token"),
        ({"dt": torch.ones(2, 2, 4, 2)}, r"dt has shape .* expected \(2, 2, 4, 3\)"),
        ({"dt_weight": None}, r"expected \(2, 2, 4, 6\).*as dt_weight is None"),
        ({"dt_weight": torch.ones(2, 5, 3)}, r"dt_weight has shape \(2, 5, 3\), expected \(2, 6, 3\)"),
        ({"D": torch.ones(6)}, r"D has shape \(6,\), expected \(2, 6\)"),
        ({"z": torch.ones(2, 4, 6)}, r"z has shape \(2, 4, 6\), expected \(2, 5, 6\)"),
        ({"conv": (torch.ones(2, 4), None)}, r"conv's weight has shape \(2, 4\)"),
        ({"merge": "mean"}, r"merge is 'mean'"),
        ({"rows": "pixels"}, r"rows is 'pixels'"),
    ],
)
def test_errors(change, message):
    arguments = {
        "x": torch.ones(2, 5, 6),
        "order": torch.zeros(2, 4, dtype=torch.int32),
        "dt": torch.ones(2, 2, 4, 3),
        "dt_weight": torch.ones(2, 6, 3),
        "A": -torch.ones(2, 6, 1),
        "B": torch.ones(2, 2, 4, 1),
        "C": torch.ones(2, 2, 4, 1),
    }
    with pytest.raises(ValueError, match=message):
        ordered_scan(**{**arguments, **change})
