"""Every variant of the Triton kernels (block shapes, splits, prefetching) against the definition in float64.

Users get one variant a shape by the tuning table; here all are forced on small shapes, in the interpreter
(TRITON_INTERPRET=1) and on a GPU (-m gpu).
"""

import os

import pytest
import torch

from mamba_vision.kernels import ordered_scan, selective_scan, use_backend
from mamba_vision.kernels.selective_scan.reference import selective_scan_reference

triton = pytest.importorskip("triton")
from mamba_vision.kernels.ordered_scan.triton_impl import lean_memory  # noqa: E402
from mamba_vision.kernels.selective_scan.triton_tuning import override  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]

ONE_STATE = [
    dict(BC=BC, V=V, W=W, T=T) for BC, V, W in ((32, 1, 1), (32, 1, 4), (64, 2, 1), (64, 2, 2), (32, 2, 2))
    for T in (4, 8, 16)
]  # fmt: skip
FORWARD = [
    dict(BC=64, V=2, T=2), dict(BC=64, V=2, T=4, near=1), dict(BC=32, V=1, T=8, near=2), dict(BC=16, V=1, T=4),
    dict(BC=32, V=1, T=4, chunk=16), dict(BC=64, V=2, T=4, chunk=32, near=1),
]  # fmt: skip
BACKWARD = [
    dict(BC=32, V=1, unroll=1, reload=True, near=0), dict(BC=32, V=1, unroll=4, near=2),
    dict(BC=64, V=2, registers=None), dict(chunk=16),
    dict(BC=64, V=2, registers=None, chunk=32, local_v=2, local_bc=64),
]  # fmt: skip


def inputs(batch, channels, length, state, groups=1, z=True, dtype=torch.float32):
    def tokens():
        return torch.randn(batch, length, channels, device=DEVICE, dtype=dtype).transpose(1, 2)

    return dict(
        u=tokens(), delta=tokens() * 0.5, A=-torch.rand(channels, state, device=DEVICE) * 4 - 0.1,
        B=torch.randn(batch, groups, state, length, device=DEVICE, dtype=dtype),
        C=torch.randn(batch, groups, length, state, device=DEVICE, dtype=dtype).transpose(2, 3),
        D=torch.randn(channels, device=DEVICE), z=tokens() if z else None,
        delta_bias=torch.randn(channels, device=DEVICE),
        initial_state=torch.randn(batch, channels, state, device=DEVICE),
    )  # fmt: skip


def leaves(arguments, dtype=None):
    return {
        k: None if v is None else (v.to(dtype) if dtype else v).detach().requires_grad_() for k, v in arguments.items()
    }


def check(arguments, tolerance=1e-5):
    """Outputs, last state and every gradient, relative to the norm."""
    mine, exact = leaves(arguments), leaves(arguments, torch.float64)
    with use_backend("triton"):
        out, last = selective_scan(**mine, delta_softplus=True, return_last_state=True)
    want, want_last = selective_scan_reference(*exact.values(), True, torch.float64)
    grad, grad_last = torch.randn_like(out), torch.randn_like(last)
    torch.autograd.backward((out, last), (grad, grad_last))
    torch.autograd.backward((want, want_last), (grad.double(), grad_last.double()))
    found = {"out": (out, want), "last": (last, want_last)}
    found |= {k: (mine[k].grad, exact[k].grad) for k in mine if mine[k] is not None}
    for name, (got, expected) in found.items():
        error = (got.double() - expected).norm() / expected.norm().clamp_min(1e-30)
        assert error < tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("choice", ONE_STATE, ids=str)
@pytest.mark.parametrize("length", [37, 64])
def test_one_state(choice, length):
    if INTERPRETED and length == 64 and choice["T"] != 8:
        pytest.skip("the interpreter is slow")
    backward = {k: v for k, v in choice.items() if k != "T"}
    with override(OneStateForward=choice, OneStateBackward=backward):
        check(inputs(1, 64, length, 1, groups=1 if choice["BC"] == 64 else 2, z=choice["W"] == 2))


@pytest.mark.parametrize("choice", FORWARD, ids=str)
def test_forward_of_many_states(choice):
    with override(ForwardStates=choice):
        check(inputs(1, 64, 37 if INTERPRETED else 77, 2 if INTERPRETED else 16))


@pytest.mark.parametrize("choice", BACKWARD, ids=str)
def test_backward_of_many_states(choice):
    with override(BackwardStates=choice):
        check(inputs(1, 64, 37 if INTERPRETED else 77, 2 if INTERPRETED else 16))


def test_whole_tiles_take_the_path_without_masks():
    with override(ForwardStates=dict(chunk=16), BackwardStates=dict(chunk=16)):
        check(inputs(1, 32, 32, 2))


def test_lean_memory_gives_the_same_result():
    order = torch.stack([torch.randperm(10), torch.randperm(10)]).to(DEVICE)
    x = torch.randn(3, 10, 6, device=DEVICE, requires_grad=True)
    rest = (
        torch.randn(3, 2, 10, 2, device=DEVICE), torch.randn(2, 6, 2, device=DEVICE),
        -torch.rand(2, 6, 2, device=DEVICE), torch.randn(3, 2, 10, 2, device=DEVICE),
        torch.randn(3, 2, 10, 2, device=DEVICE),
    )  # fmt: skip
    results = []
    for lean in (False, True):
        with lean_memory(lean), use_backend("triton"):
            out = ordered_scan(x, order, *rest)
            results.append((out, *torch.autograd.grad(out.square().sum(), x)))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)
