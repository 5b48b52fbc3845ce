"""causal_conv1d: recorded cases, random shapes against the definition, states, packed sequences, decoding, errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import compare
from recorded import recorded

from mamba_vision.kernels import causal_conv1d, causal_conv1d_update, use_backend

CASES = recorded("ssm_core", "causal_conv1d_fn")


def run_case(case, device: str) -> None:
    inputs = {k: v.to(device) for k, v in case.inputs().items()}
    step = inputs.pop("x_step", None)
    leaves = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
    out = causal_conv1d(**leaves, **case.source["kwargs"])
    y, final_states = out if isinstance(out, tuple) else (out, None)
    case.loss_outputs = ["y"]
    case.loss(y=y.cpu()).backward()
    found = {"y": y, "final_states": final_states, **{f"grad_{k}": v.grad for k, v in leaves.items()}}
    if step is not None:
        update = {k: v.detach() for k, v in leaves.items() if k in ("weight", "bias")}
        state = leaves["x"][..., 1 - update["weight"].shape[1] :].detach().clone()
        found["y_step"] = causal_conv1d_update(step, state, **update, activation=case.source["kwargs"]["activation"])
        found["conv_state"] = state
    case.check(**{name: found[name].cpu() for name in case.outputs})


@pytest.mark.parametrize("name", CASES)
def test_recorded_case_reference(name, golden):
    with use_backend("reference"):
        run_case(golden(f"ssm_core/{name}"), "cpu")


@pytest.mark.parametrize("name", CASES)
def test_recorded_case(name, golden, backend):
    run_case(golden(f"ssm_core/{name}"), backend.device)


def conv_inputs(batch=2, channels=5, length=13, width=4, bias=True, initial=False, packed=False):
    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64)

    return {
        "x": normal(batch, channels, length),
        "weight": normal(channels, width),
        "bias": normal(channels) if bias else None,
        "initial_states": normal(batch, channels, width - 1) if initial else None,
        "seq_idx": torch.sort(torch.randint(0, 4, (batch, length), dtype=torch.int32), dim=1)[0] if packed else None,
    }


def test_random_shapes(backend):
    @settings(max_examples=backend.examples, deadline=None, database=None, derandomize=True)
    @given(
        batch=st.integers(0, 3),
        channels=st.integers(1, 40),
        length=st.sampled_from([1, 2, 3, 5, 8, 31, 33, 70]),
        width=st.integers(1, 7),
        silu=st.booleans(),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    )
    def check(batch, channels, length, width, silu, flags):
        bias, initial, packed = flags
        torch.manual_seed(0)
        inputs = conv_inputs(batch, channels, length, width, bias, initial and not packed, packed)

        def op(**k):
            return causal_conv1d(**k, activation="silu" if silu else None, return_final_states=not packed)

        compare(op, inputs, backend.device, parameters=("weight", "bias"))

    check()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype, backend):
    compare(lambda **k: causal_conv1d(**k, activation="silu"), conv_inputs(), backend.device, dtype, ("weight", "bias"))


def test_equals_torch_convolution(backend):
    x, layer = torch.randn(2, 8, 20), torch.nn.Conv1d(8, 8, 4, groups=8, padding=3)
    x, layer = x.to(backend.device), layer.to(backend.device)
    got = causal_conv1d(x, layer.weight.squeeze(1), layer.bias, "silu")
    torch.testing.assert_close(got, F.silu(layer(x)[..., :20]))


def test_strides(backend):
    x = torch.randn(2, 9, 12, device=backend.device)
    weight = torch.randn(6, 4, device=backend.device)
    view = x[..., 3:9].transpose(1, 2)
    leaf = view.detach().requires_grad_()
    y = causal_conv1d(leaf, weight, None, "silu")
    compact = view.contiguous().requires_grad_()
    want = causal_conv1d(compact, weight, None, "silu")
    torch.testing.assert_close(y, want)
    rows = torch.arange(9.0, device=x.device)
    (grad,) = torch.autograd.grad((y * rows).sum(), leaf)
    (want_grad,) = torch.autograd.grad((want * rows).sum(), compact)
    torch.testing.assert_close(grad, want_grad)


@pytest.mark.parametrize(("length", "width"), [(6, 4), (2, 5)])
def test_gradcheck(length, width):
    inputs = conv_inputs(1, 2, length, width, initial=True)
    tensors = [v.requires_grad_() for v in inputs.values() if v is not None]

    def op(x, weight, bias, states):
        return causal_conv1d(x, weight, bias, "silu", states, return_final_states=True)

    with use_backend("portable"):
        torch.autograd.gradcheck(op, tensors, fast_mode=True)


def test_states_continue_a_sequence(backend):
    inputs = {k: v.float().to(backend.device) for k, v in conv_inputs().items() if v is not None}
    want = causal_conv1d(**inputs)
    x = inputs.pop("x")
    first, states = causal_conv1d(x[..., :2], **inputs, return_final_states=True)
    second, states = causal_conv1d(x[..., 2:9], **inputs, initial_states=states, return_final_states=True)
    third = causal_conv1d(x[..., 9:], **inputs, initial_states=states)
    torch.testing.assert_close(torch.cat([first, second, third], dim=2), want)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("ring", [False, True])
def test_update_continues_a_sequence(steps, size, ring):
    inputs = {k: v.float() for k, v in conv_inputs(length=21).items() if v is not None}
    want = causal_conv1d(**inputs, activation="silu")
    state, seen = torch.zeros(2, 5, size), torch.zeros(2, dtype=torch.int32)
    for t in range(0, 21, steps):
        got = causal_conv1d_update(
            inputs["x"][..., t : t + steps], state, inputs["weight"], inputs["bias"], "silu", seen if ring else None
        )
        torch.testing.assert_close(got, want[..., t : t + steps])
        seen += steps
    one = causal_conv1d_update(inputs["x"][..., 0], torch.zeros(2, 5, 3), inputs["weight"], inputs["bias"], "swish")
    torch.testing.assert_close(one, want[..., 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.ones(2, 3)}, r"x has shape \(2, 3\)"),
        ({"weight": torch.ones(4, 2)}, r"weight has shape \(4, 2\).*3 channels of x \(2, 3, 5\)"),
        ({"bias": torch.ones(4)}, r"bias has shape \(4,\), expected \(3,\)"),
        ({"activation": "relu"}, r"activation is 'relu'"),
        ({"initial_states": torch.ones(2, 3, 3)}, r"initial_states has shape \(2, 3, 3\), expected \(2, 3, 1\)"),
        ({"seq_idx": torch.ones(2, 4).int()}, r"seq_idx has shape \(2, 4\), expected \(2, 5\)"),
        ({"seq_idx": torch.ones(2, 5)}, r"seq_idx has dtype torch.float32"),
        ({"seq_idx": torch.ones(2, 5).int(), "return_final_states": True}, r"seq_idx cannot be combined"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**{"x": torch.ones(2, 3, 5), "weight": torch.ones(3, 2), **arguments})


def test_update_errors():
    x, state, weight = torch.ones(2, 3), torch.zeros(2, 3, 2), torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"conv_state has shape \(2, 3, 2\), expected \(2, 3, at least 3\)"):
        causal_conv1d_update(x, state, weight)
    with pytest.raises(ValueError, match=r"weight has shape \(2, 4\)"):
        causal_conv1d_update(x, state, weight[:2])
