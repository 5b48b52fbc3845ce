"""What only a GPU can show of the Triton kernels: large tensors, poisoned memory, repeatable bits, graphs."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from mamba_vision.kernels import add_norm, causal_conv1d, ordered_scan, selective_scan, ssd, use_backend

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def on_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    with use_backend("triton"):
        yield


def scan_inputs(batch=2, channels=96, length=197, state=16, groups=1, dtype=torch.bfloat16):
    def tokens():
        return torch.randn(batch, length, channels, device="cuda", dtype=dtype).transpose(1, 2).requires_grad_()

    parameters = dict(
        A=(-torch.rand(channels, state, device="cuda") * 4 - 0.1).requires_grad_(),
        B=torch.randn(batch, groups, state, length, device="cuda", dtype=dtype).requires_grad_(),
        C=torch.randn(batch, groups, state, length, device="cuda", dtype=dtype).requires_grad_(),
        D=torch.randn(channels, device="cuda").requires_grad_(),
        delta_bias=torch.randn(channels, device="cuda").requires_grad_(),
    )
    return dict(u=tokens(), delta=tokens(), **parameters, z=tokens())


def order_inputs(batch=2, side=8, channels=96, state=1, dtype=torch.bfloat16):
    grid = torch.arange(side * side, device="cuda").view(side, side)
    rows, columns = grid.flatten(), grid.t().flatten()
    order = torch.stack([rows, columns, rows.flip(0), columns.flip(0)]).int()

    def made(*shape):
        return torch.randn(*shape, device="cuda", dtype=dtype).requires_grad_()

    L = side * side
    return (
        made(batch, L, channels), order, made(batch, 4, L, channels), None,
        (-torch.rand(4, channels, state, device="cuda")).requires_grad_(), made(batch, 4, L, state),
        made(batch, 4, L, state), torch.randn(4, channels, device="cuda").requires_grad_(),
        torch.randn(4, channels, device="cuda").requires_grad_(),
    )  # fmt: skip


def run_scan(arguments):
    out = selective_scan(**arguments, delta_softplus=True)
    leaves = [t for t in arguments.values() if t is not None]
    return [out, *torch.autograd.grad(out.float().square().sum(), leaves)]


def run_order(arguments):
    out = ordered_scan(*arguments)
    leaves = [t for t in arguments if t is not None and t.requires_grad]
    return [out, *torch.autograd.grad(out.float().square().sum(), leaves)]


def run_rest(batch=2, length=197, channels=96, dtype=torch.bfloat16):
    """Convolution, norm and Mamba-2's scan: results and gradients."""

    def made(*shape, dtype=dtype):
        return torch.randn(*shape, device="cuda", dtype=dtype).requires_grad_()

    torch.manual_seed(0)
    x, weight, bias = made(batch, length, channels), made(channels, 4, dtype=torch.float32), made(channels)
    residual = made(batch, length, channels, dtype=torch.float32)
    B, dt = made(batch, length, 1, 16), made(batch, length, 6)
    convolved = causal_conv1d(x.transpose(1, 2), weight, bias, "silu").transpose(1, 2)
    normed, total = add_norm(convolved, residual, bias.float(), out_dtype=dtype)
    A = -torch.arange(1.0, 7.0, device="cuda")
    y = ssd(normed.unflatten(2, (6, -1)), dt, A, B, B.flip(1), dt_softplus=True)
    loss = y.float().square().sum() + total.square().sum()
    return [y, total, *torch.autograd.grad(loss, (x, weight, bias, residual, B, dt))]


def poison() -> None:
    """Leave NaN in the memory that the allocator hands out next."""
    for size in (2**14, 2**18, 2**22, 2**25):
        for _ in range(4):
            torch.full((size // 4,), float("nan"), device="cuda")


@pytest.mark.parametrize("state", [1, 3, 16])
def test_every_element_is_written(state):
    for arguments in (scan_inputs(state=state), scan_inputs(state=state, length=1000, batch=1)):
        poison()
        assert all(torch.isfinite(t).all() for t in run_scan(arguments))
    poison()
    assert all(torch.isfinite(t).all() for t in run_order(order_inputs(state=state)))
    poison()
    assert all(torch.isfinite(t).all() for t in run_rest())


@pytest.mark.parametrize("state", [1, 16])
def test_bits_repeat(state):
    scan, order = scan_inputs(length=1000, state=state), order_inputs(state=state)
    for run, arguments in ((run_scan, scan), (run_order, order)):
        first = run(arguments)
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(first, run(arguments)))
    first = run_rest()
    assert all(torch.equal(a, b) for a, b in zip(first, run_rest()))


def test_more_than_two_to_the_31_elements():
    batch, length, channels = 2, 2**20 + 3, 1088  # 2.28e9 elements a tensor; the last sequence lies beyond 2^31
    with torch.no_grad():
        u = torch.empty(batch, length, channels, device="cuda", dtype=torch.float16)
        for part in u.split(2**17, dim=1):
            part.normal_()
        u = u.transpose(1, 2)
        delta = u.new_full((1, 1, 1), -3.0).expand_as(u)
        A = -torch.ones(channels, 1, device="cuda")
        B = torch.ones(batch, 1, 1, length, device="cuda", dtype=torch.float16)
        out = selective_scan(u, delta, A, B, B, delta_softplus=True)
        want = selective_scan(
            u[1:, -5:, -4096:].float().contiguous(), delta[1:, -5:, -4096:].float(), A[-5:], B[1:, ..., -4096:].float(),
            B[1:, ..., -4096:].float(), delta_softplus=True,
        )  # fmt: skip
        torch.testing.assert_close(out[1:, -5:, -100:].float(), want[..., -100:], rtol=2e-2, atol=2e-2)
        del out
        filtered = causal_conv1d(u, torch.ones(channels, 3, device="cuda"))
        want = (u[1, -1, -1].float() + u[1, -1, -2].float() + u[1, -1, -3].float()).half()
        torch.testing.assert_close(filtered[1, -1, -1], want, rtol=1e-2, atol=1e-2)


def test_empty_batch():
    arguments = {k: v[:0] if v.dim() > 2 else v for k, v in scan_inputs().items()}
    assert run_scan(arguments)[0].shape[0] == 0


def test_compiles_without_graph_breaks():
    arguments = scan_inputs()
    compiled = torch.compile(lambda a: selective_scan(**a, delta_softplus=True), fullgraph=True)
    torch.testing.assert_close(compiled(arguments), selective_scan(**arguments, delta_softplus=True))
    order = order_inputs(dtype=torch.float32)
    compiled = torch.compile(ordered_scan, fullgraph=True)
    torch.testing.assert_close(compiled(*order), ordered_scan(*order), rtol=1e-4, atol=1e-4)


def test_cuda_graph_replays_forward_and_backward():
    for run, arguments in ((run_scan, scan_inputs()), (run_order, order_inputs())):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                want = run(arguments)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = run(arguments)
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(found, want))


def test_autocast_and_activation_checkpointing():
    from torch.utils.checkpoint import checkpoint

    arguments = scan_inputs(dtype=torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        plain = run_scan(arguments)
        out = checkpoint(lambda: selective_scan(**arguments, delta_softplus=True), use_reentrant=False)
        again = [out, *torch.autograd.grad(out.float().square().sum(), list(arguments.values()))]
    assert all(torch.equal(a, b) for a, b in zip(plain, again))


SWEEP = """
import sys
import torch
from mamba_vision.kernels import ssd
from mamba_vision.kernels.selective_scan.triton_tuning import override
from tests_gpu import order_inputs, run_order, run_rest, run_scan, scan_inputs
run_rest(1, 37, 48)
for state in (1, 3, 16):
    run_scan(scan_inputs(batch=1, channels=40, length=37, state=state)); run_order(order_inputs(1, 5, 40, state))
with override(ForwardStates=dict(chunk=16), BackwardStates=dict(chunk=16)):
    run_scan(scan_inputs(batch=1, channels=96, length=64))
with override(OneStateForward=dict(W=4, BC=32, V=1), OneStateBackward=dict(W=4, BC=32, V=1)):
    run_scan(scan_inputs(batch=1, channels=64, length=70, state=1))
# not under racecheck: of sums that several warps hold alike, each writes the same value (bits repeat: test_ssd.py)
for dtype in (torch.float32, torch.bfloat16) if sys.argv[1] == "memcheck" else ():
    for P, N in ((8, 16), (64, 64)):
        x, B = (torch.randn(1, 70, 2, n, device="cuda", dtype=dtype, requires_grad=True) for n in (P, N))
        dt = torch.rand(1, 70, 2, device="cuda", requires_grad=True)
        ssd(x, dt, -torch.ones(2, device="cuda"), B, B, chunk_size=64).sum().backward()
torch.cuda.synchronize()
print("swept")
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer(tool, tmp_path):
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    shutil.copy(__file__, tmp_path / "tests_gpu.py")
    (tmp_path / "sweep.py").write_text(SWEEP)
    environment = dict(os.environ, PYTORCH_NO_CUDA_MEMORY_CACHING="1", MAMBA_VISION_BACKEND="triton")
    found = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "sweep.py", tool], cwd=tmp_path, text=True,
        capture_output=True, timeout=600, env=environment, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "swept" in found.stdout
