"""selective_scan: recorded cases, random shapes and options against the definition, numerical edges, errors."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import compare, relative_error, scan_inputs
from recorded import recorded
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mamba_vision.kernels import selective_scan, selective_state_update, use_backend
from mamba_vision.kernels.backends import load
from mamba_vision.kernels.selective_scan import portable

PARAMETERS = ("A", "D", "delta_bias", "initial_state")
CASES = recorded("ssm_core", "selective_scan_fn")
COMPLEX_CASES = [name for name in CASES if "complex" in name]
REAL_CASES = [name for name in CASES if name not in COMPLEX_CASES]


def scan(delta_softplus=True, last=True, **inputs):
    return selective_scan(**inputs, delta_softplus=delta_softplus, return_last_state=last)


def run_case(case, device: str) -> None:
    inputs = case.inputs()
    if half := re.search(r"\bround .* to (b?float16)", case.notes):
        rounded = ("u", "delta", "B", "C", "z")
        inputs = {k: v.to(getattr(torch, half[1])) if k in rounded else v for k, v in inputs.items()}
    leaves = {k: v.to(device).requires_grad_() for k, v in inputs.items()}
    fed = dict(leaves)
    if case.name in COMPLEX_CASES:
        # stored as pairs of real numbers; B and C that vary are passed so, as they are published
        fed |= {k: torch.view_as_complex(v) for k, v in leaves.items() if v.shape == leaves["A"].shape}
    options = {**case.source["kwargs"], "return_last_state": True}
    y, last_state = selective_scan(**fed, **options)
    case.loss_outputs = ["y"]
    case.loss(y=y.cpu().float()).backward()
    last_state = torch.view_as_real(last_state) if last_state.is_complex() else last_state
    found = {"y": y, "last_state": last_state, **{f"grad_{k}": v.grad for k, v in leaves.items()}}
    case.check(**{name: found[name].cpu() for name in case.outputs})


@pytest.mark.parametrize("name", CASES)
def test_recorded_case_reference(name, golden):
    with use_backend("reference"):
        run_case(golden(f"ssm_core/{name}"), "cpu")


@pytest.mark.parametrize("name", REAL_CASES)
def test_recorded_case(name, golden, backend):
    run_case(golden(f"ssm_core/{name}"), backend.device)


@pytest.mark.parametrize("name", COMPLEX_CASES)
def test_recorded_complex_case_runs_where_nothing_is_asked_for(name, golden):
    run_case(golden(f"ssm_core/{name}"), "cpu")


@pytest.mark.parametrize("name", ["B", "C", "z", "D", "bias", "initial", "softplus"])
def test_every_option(name, backend):
    options = {"delta_softplus": True}
    shape = {}
    if name in ("B", "C"):
        for kind, other in itertools.product(("constant", "shared", "grouped"), repeat=2):
            inputs = scan_inputs(B=kind, C=other)
            compare(scan, inputs, backend.device, parameters=PARAMETERS)
        return
    if name == "softplus":
        options["delta_softplus"] = False
    else:
        shape[name] = False
    inputs = scan_inputs(**shape)
    if name == "softplus":
        inputs["delta"], inputs["delta_bias"] = inputs["delta"].abs() * 0.3, inputs["delta_bias"].abs() * 0.1
    compare(lambda **k: scan(**options, **k), inputs, backend.device, parameters=PARAMETERS)


def test_random_shapes(backend):
    @settings(max_examples=backend.examples, deadline=None, database=None, derandomize=True)
    @given(
        batch=st.integers(0, 3),
        groups=st.integers(1, 3),
        per_group=st.integers(1, 9),
        state=st.integers(1, 18),
        length=st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17, 31, 64, 65, 130]),
        B=st.sampled_from(["constant", "shared", "grouped"]),
        C=st.sampled_from(["constant", "shared", "grouped"]),
        flags=st.tuples(*[st.booleans()] * 5),
    )
    def check(batch, groups, per_group, state, length, B, C, flags):
        z, D, bias, initial, softplus = flags
        torch.manual_seed(0)
        inputs = scan_inputs(batch, groups * per_group, length, state, groups, B, C, z, D, bias, initial)
        if not softplus:
            inputs["delta"] = inputs["delta"].abs() * 0.2
            if bias:
                inputs["delta_bias"] = inputs["delta_bias"].abs() * 0.1
        compare(lambda **k: scan(delta_softplus=softplus, **k), inputs, backend.device, parameters=PARAMETERS)

    check()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype, backend):
    inputs = scan_inputs(length=37)
    compare(scan, inputs, backend.device, dtype, parameters=PARAMETERS)


def test_mixed_dtypes_and_float32_output(backend):
    inputs = {k: v.float().to(backend.device) for k, v in scan_inputs().items()}
    for name in ("u", "delta", "z"):
        inputs[name] = inputs[name].half()
    y, last_state = scan(**inputs, out_dtype=torch.float32)
    assert y.dtype == last_state.dtype == torch.float32
    assert scan(**inputs, last=False).dtype == torch.float16
    with use_backend("reference"):
        want, _ = scan(**{k: v.double() for k, v in inputs.items()})
    assert relative_error(y, want) < 2e-6


@pytest.mark.parametrize("layout", ["channels last", "slice", "every second", "expanded"])
def test_strides(layout, backend):
    base = {k: v.to(backend.device) for k, v in scan_inputs().items()}

    def strided(t):
        if layout == "channels last":
            return t.transpose(-1, -2).contiguous().transpose(-1, -2)
        if layout == "slice":
            return torch.cat([t, t + 1, t], dim=1)[:, t.shape[1] : 2 * t.shape[1]]
        if layout == "every second":
            return t.repeat_interleave(2, dim=-1)[..., ::2]
        return t[:1].expand_as(t)

    inputs = {k: strided(v) if v.dim() >= 3 else v for k, v in base.items()}
    compact = {k: v.contiguous() for k, v in inputs.items()}

    def gradients(inputs):
        leaves = {k: v.float().detach() for k, v in inputs.items()}
        leaves = {k: v.requires_grad_() for k, v in leaves.items()}
        y, last = scan(**leaves)
        weight = torch.linspace(-1, 1, y.shape[2], device=y.device)
        return y, torch.autograd.grad((y * weight).sum() + last.sum(), list(leaves.values()))

    (y, got), (want_y, want) = gradients(inputs), gradients(compact)
    assert relative_error(y, want_y) < 1e-6
    for name, a, b in zip(inputs, got, want):
        assert relative_error(a, b) < 1e-5, name
    if layout == "channels last":
        assert y.transpose(1, 2).is_contiguous()


def test_split_sequence_equals_whole(backend):
    """The last state of the first half continues the second half, forward and backward."""
    inputs = {k: v.to(backend.device) for k, v in scan_inputs(length=50).items()}
    leaves = {k: v.requires_grad_() for k, v in inputs.items()}
    whole, last = scan(**leaves)
    want = torch.autograd.grad(whole.sum() + last.sum(), list(leaves.values()))

    def part(slice_, state):
        cut = {k: v[..., slice_] if v.dim() >= 3 and k != "initial_state" else v for k, v in leaves.items()}
        return scan(**{**cut, "initial_state": state})

    first, middle = part(slice(0, 23), leaves["initial_state"])
    second, end = part(slice(23, None), middle)
    halves = torch.cat([first, second], dim=2)
    torch.testing.assert_close(halves, whole)
    got = torch.autograd.grad(halves.sum() + end.sum(), list(leaves.values()))
    for name, a, b in zip(leaves, got, want):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("kinds", [("shared", "grouped"), ("constant", "constant")])
def test_gradcheck(kinds, cpu_backend):
    inputs = scan_inputs(batch=1, channels=2, length=9, state=2, B=kinds[0], C=kinds[1])
    tensors = [v.requires_grad_() for v in inputs.values()]
    with use_backend(cpu_backend):
        torch.autograd.gradcheck(lambda *t: scan(**dict(zip(inputs, t))), tensors, fast_mode=True)


def test_large_steps_forget_without_nan(backend):
    inputs = scan_inputs(length=40)
    inputs["delta"] = inputs["delta"] * 60 + 40  # s A down to -500
    inputs["A"] = inputs["A"] - 1
    compare(scan, inputs, backend.device, parameters=PARAMETERS, tolerance=1e-4)


def test_softplus_keeps_tiny_steps(backend):
    inputs = scan_inputs(bias=False, initial=False)
    inputs["delta"] = inputs["delta"] - 25
    compare(scan, inputs, backend.device, parameters=PARAMETERS)


def test_nan_stays_in_its_sequence(backend):
    inputs = {k: v.float().to(backend.device) for k, v in scan_inputs(batch=3, length=40).items()}
    clean = scan(**inputs)[0]
    inputs["u"][1, 2, 11] = float("nan")
    leaf = inputs["u"].clone().requires_grad_()
    y = scan(**{**inputs, "u": leaf})[0]
    y.sum().backward()
    for kept in (0, 2):
        torch.testing.assert_close(y[kept], clean[kept])
        assert leaf.grad[kept].isfinite().all()
    torch.testing.assert_close(y[1, :, :11], clean[1, :, :11])
    assert y[1, 2, 11:].isnan().all()


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [
            t.untyped_storage().nbytes() // t.element_size() for t in tree_leaves(out) if isinstance(t, torch.Tensor)
        ]
        self.elements = max(self.elements, *made, 0)
        return out


def test_long_sequence_in_bounded_memory(cpu_backend):
    """110592 steps (a grid of 48 x 48 x 48): no tensor grows with length x channels x state, in either direction."""
    u = torch.randn(1, 110592, 96).transpose(1, 2)
    B = torch.randn(1, 1, 16, 110592)
    A = -torch.arange(1.0, 17).repeat(96, 1)
    inputs = (u, u, A, B, B, None, None, None, None)
    with LargestTensor() as made:
        y, _, saved = load("selective_scan", cpu_backend).forward(*inputs, True, torch.float32, True)
        gradients = load("selective_scan", cpu_backend).backward(torch.ones_like(y), None, *inputs, saved, True)
    assert made.elements < 1.1 * u.numel()
    piece = tuple(t if t is None or t.dim() == 2 else t[..., :400] for t in inputs)
    want = portable.forward(*piece, True, torch.float32, False)[0]
    torch.testing.assert_close(y[..., :400], want, rtol=1e-4, atol=1e-4)
    assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": (2, 6)}, r"u has shape \(2, 6\), expected \(batch, channels, length\)"),
        ({"u": (2, 6, 0)}, r"length must be at least 1"),
        ({"delta": (2, 6, 4)}, r"delta has shape \(2, 6, 4\), expected \(2, 6, 5\)"),
        ({"z": (2, 5, 5)}, r"z has shape \(2, 5, 5\), expected \(2, 6, 5\)"),
        ({"A": (5, 3)}, r"A has shape \(5, 3\).*6 channels as in u \(2, 6, 5\)"),
        ({"B": (2, 4, 3, 5)}, r"B has shape \(2, 4, 3, 5\): its 4 groups do not divide the 6 channels"),
        ({"B": (2, 4, 5)}, r"B has shape \(2, 4, 5\), expected \(2, 3, 5\)"),
        ({"B": (2, 3, 3, 5), "C": (2, 2, 3, 5)}, r"B and C have 3 and 2 groups"),
        ({"C": (6, 2)}, r"C has shape \(6, 2\), expected \(6, 3\)"),
        ({"C": (2,)}, r"C has shape \(2,\)"),
        ({"D": (5,)}, r"D has shape \(5,\), expected \(6,\)"),
        ({"delta_bias": (7,)}, r"delta_bias has shape \(7,\)"),
        ({"initial_state": (2, 6, 2)}, r"initial_state has shape \(2, 6, 2\), expected \(2, 6, 3\)"),
    ],
)
def test_errors_name_argument_and_shapes(change, message):
    shapes = {"u": (2, 6, 5), "delta": (2, 6, 5), "A": (6, 3), "B": (2, 3, 5), "C": (2, 3, 5), **change}
    with pytest.raises(ValueError, match=message):
        selective_scan(**{k: torch.ones(s) for k, s in shapes.items()})


def test_errors_of_dtype_and_device():
    u, A, B = torch.ones(1, 2, 3), -torch.ones(2, 4), torch.ones(1, 4, 3)
    with pytest.raises(ValueError, match=r"u has dtype torch.int64"):
        selective_scan(u.long(), u, A, B, B)
    with pytest.raises(ValueError, match=r"B has dtype torch.complex64"):
        selective_scan(u, u, A, B.to(torch.complex64), B)
    with pytest.raises(ValueError, match=r"A is on meta, but u is on cpu"):
        selective_scan(u, u, A.to("meta"), B, B)
    with pytest.raises(ValueError, match=r"out_dtype is torch.int32"):
        selective_scan(u, u, A, B, B, out_dtype=torch.int32)


@pytest.mark.parametrize("name", recorded("ssm_core", "selective_state_update"))
def test_recorded_state_update(golden, name):
    case = golden(f"ssm_core/{name}")
    inputs = case.inputs()
    y = selective_state_update(**inputs, **case.source["kwargs"])
    case.check(y=y, new_state=inputs["state"])


def test_state_update_continues_a_scan():
    inputs = {
        k: v.float() for k, v in scan_inputs(length=12, initial=False, B="shared", C="shared").items() if v is not None
    }
    want, last = scan(**inputs)
    state = torch.zeros(2, 6, 4)
    for t in range(12):
        step = {k: inputs[k][..., t] for k in ("B", "C", "z")}
        y = selective_state_update(
            state, inputs["u"][..., t], inputs["delta"][..., t], inputs["A"], **step, D=inputs["D"],
            dt_bias=inputs["delta_bias"], dt_softplus=True,
        )  # fmt: skip
        torch.testing.assert_close(y, want[..., t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)


def test_state_update_errors():
    state, x, A = torch.zeros(2, 6, 4), torch.ones(2, 6), -torch.ones(6, 4)
    with pytest.raises(ValueError, match=r"B has shape \(2, 5\)"):
        selective_state_update(state, x, x, A, torch.ones(2, 5), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"dt has shape \(2, 5\), expected \(2, 6\)"):
        selective_state_update(state, x, x[:, :5], A, torch.ones(2, 4), torch.ones(2, 4))


def test_portable_scan_of_several_groups_without_gradients() -> None:
    """The state goes from group to group although all are computed in the same memory."""
    shapes = dict(u=(1, 360, 1521), delta=(1, 360, 1521), A=(360, 10), B=(1, 4, 10, 1521), C=(1, 4, 10, 1521))
    torch.manual_seed(0)
    inputs = {name: torch.rand(shape) for name, shape in shapes.items()}
    inputs["A"], inputs["delta"] = -inputs["A"], 0.1 * inputs["delta"]
    with torch.no_grad():
        with use_backend("portable"):
            out = selective_scan(**inputs)
        with use_backend("reference"):
            expected = selective_scan(**inputs)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_complex_pairs_keep_float64():
    """B and C of complex A, given as pairs of real numbers, are not rounded on the way."""
    torch.manual_seed(0)
    u, delta = torch.randn(1, 2, 5, dtype=torch.float64), torch.randn(1, 2, 5, dtype=torch.float64)
    A = torch.complex(-torch.rand(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64))
    B, C = torch.randn(2, 1, 2, 3, 10, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (u, delta, A, B, C)]
    torch.autograd.gradcheck(lambda *t: selective_scan(*t, delta_softplus=True), leaves, fast_mode=True)
