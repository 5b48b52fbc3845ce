"""ssd: recorded cases, random shapes against the definition, errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import compare
from recorded import recorded

from mamba_vision.kernels import ssd, use_backend

CASES = recorded("ssm_core", "mamba_chunk_scan_combined")


def run_case(case, chunk_size: int, device: str) -> None:
    inputs = {k: v.to(device) for k, v in case.inputs().items()}
    leaves = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in inputs.items()}
    options = {**case.source["kwargs"], "chunk_size": chunk_size, "return_final_states": True}
    y, final_states = ssd(**leaves, **options)
    case.loss_outputs = ["y", "final_states"]
    case.loss(y=y.cpu(), final_states=final_states.cpu()).backward()
    found = {"y": y, "final_states": final_states, **{f"grad_{k}": v.grad for k, v in leaves.items()}}
    case.check(**{name: found[name].cpu() for name in case.outputs})


@pytest.mark.parametrize("name", CASES)
def test_recorded_case_reference(name, golden):
    with use_backend("reference"):
        run_case(golden(f"ssm_core/{name}"), 16, "cpu")


@pytest.mark.parametrize("chunk_size", [7, 16, 64])
@pytest.mark.parametrize("name", CASES)
def test_recorded_case(name, chunk_size, golden, backend):
    run_case(golden(f"ssm_core/{name}"), chunk_size, backend.device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("flags", ["plain", "everything", "packed"])
def test_dtypes(dtype, flags, backend):
    torch.manual_seed(0)
    full = flags != "plain"

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64)

    inputs = {
        "x": normal(2, 70, 4, 20),
        "dt": normal(2, 70, 4) - 1,
        "A": -torch.rand(4, dtype=torch.float64) * 3,
        "B": normal(2, 70, 2, 17),
        "C": normal(2, 70, 2, 17),
        "D": normal(4) if full else None,
        "z": normal(2, 70, 4, 20) if full else None,
        "dt_bias": normal(4) if full else None,
        "initial_states": normal(2, 4, 20, 17) if full else None,
        "seq_idx": torch.randint(0, 2, (2, 70)).sort(1)[0] if flags == "packed" else None,
    }

    def op(**k):
        return ssd(**k, dt_softplus=True, chunk_size=32, return_final_states=True)

    compare(op, inputs, backend.device, dtype, ("A", "D", "dt_bias", "initial_states"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("P", "N"), [(8, 16), (24, 33), (64, 64), (64, 128), (128, 64)])
def test_sizes_of_networks_on_a_gpu(P, N, dtype):
    """At 64 steps a program, tensor cores multiply in another way than at the 32 of small chunks."""
    inputs = {"x": (2, 150, 4, P), "B": (2, 150, 2, N), "C": (2, 150, 2, N)}
    inputs = {name: torch.randn(shape, dtype=torch.float64) for name, shape in inputs.items()}
    inputs |= {"dt": torch.randn(2, 150, 4, dtype=torch.float64) - 2, "A": -torch.rand(4, dtype=torch.float64) * 3}

    def op(**k):
        return ssd(**k, dt_softplus=True, chunk_size=64, return_final_states=True)

    def gradients():
        leaves = {name: value.to("cuda", torch.float32).requires_grad_() for name, value in inputs.items()}
        return torch.autograd.grad(op(**leaves)[0].square().sum(), list(leaves.values()))

    with use_backend("triton"):
        compare(op, inputs, "cuda", dtype, ("A",))
        once = gradients()
        for _ in range(20):
            assert all(torch.equal(one, two) for one, two in zip(once, gradients()))


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(
    batch=st.integers(0, 2),
    length=st.sampled_from([1, 2, 7, 16, 33]),
    groups=st.integers(1, 2),
    per_group=st.integers(1, 3),
    P=st.integers(1, 5),
    N=st.integers(1, 6),
    chunk_size=st.sampled_from([1, 4, 16]),
    flags=st.tuples(*[st.booleans()] * 6),
)
def test_random_shapes(batch, length, groups, per_group, P, N, chunk_size, flags):
    z, D, wide_D, bias, initial, packed = flags
    heads = groups * per_group
    torch.manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64)

    inputs = {
        "x": normal(batch, length, heads, P),
        "dt": normal(batch, length, heads),
        "A": -torch.rand(heads, dtype=torch.float64) * 3,
        "B": normal(batch, length, groups, N),
        "C": normal(batch, length, groups, N),
        "D": (normal(heads, P) if wide_D else normal(heads)) if D else None,
        "z": normal(batch, length, heads, P) if z else None,
        "dt_bias": normal(heads) if bias else None,
        "initial_states": normal(batch, heads, P, N) if initial else None,
        "seq_idx": torch.randint(0, 2, (batch, length)) if packed else None,
    }

    def op(**k):
        return ssd(**k, dt_softplus=True, chunk_size=chunk_size, return_final_states=True)

    with use_backend("portable"):
        compare(op, inputs, dtype=torch.float64)


def test_long_decay_is_zero_not_nan():
    x, dt = torch.randn(1, 50, 2, 3), torch.full((1, 50, 2), 40.0, requires_grad=True)
    B = torch.randn(1, 50, 1, 4)
    y = ssd(x, dt, torch.tensor([-20.0, -1.0]), B, B)
    y.sum().backward()
    assert y.isfinite().all() and dt.grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": (1, 4, 3)}, r"dt has shape \(1, 4, 3\), expected \(1, 4, 6\)"),
        ({"A": (5,)}, r"A has shape \(5,\), expected \(6,\)"),
        ({"B": (1, 4, 4, 2), "C": (1, 4, 4, 2)}, r"B has shape \(1, 4, 4, 2\).*groups dividing the 6 heads"),
        ({"C": (1, 4, 2, 3)}, r"C has shape \(1, 4, 2, 3\), expected \(1, 4, 2, 2\)"),
        ({"D": (3,)}, r"D has shape \(3,\), expected \(6,\) or \(6, 5\)"),
        ({"initial_states": (1, 6, 5, 3)}, r"initial_states has shape"),
    ],
)
def test_errors(change, message):
    shapes = {"x": (1, 4, 6, 5), "dt": (1, 4, 6), "A": (6,), "B": (1, 4, 2, 2), "C": (1, 4, 2, 2), **change}
    with pytest.raises(ValueError, match=message):
        ssd(**{k: torch.ones(s) for k, s in shapes.items()})


def test_large_steps_cost_no_precision():
    """Between steps that forget everything, decays close to one keep theirs; chunks as long as Mamba-2's."""
    torch.manual_seed(0)
    inputs = {
        "x": torch.randn(1, 300, 4, 8, dtype=torch.float64),
        "dt": 2 * torch.randn(1, 300, 4, dtype=torch.float64),
        "A": -16 * torch.rand(4, dtype=torch.float64) - 0.5,
        "B": torch.randn(1, 300, 1, 16, dtype=torch.float64),
        "C": torch.randn(1, 300, 1, 16, dtype=torch.float64),
        "dt_bias": torch.randn(4, dtype=torch.float64) + 3,
    }
    with use_backend("portable"):
        compare(lambda **k: ssd(**k, dt_softplus=True, chunk_size=256), inputs, dtype=torch.float32, tolerance=4e-6)
