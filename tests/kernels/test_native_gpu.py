"""The GPU kernels of ONNX Runtime's operators, in Triton's interpreter, called as ort_cuda.cpp calls them."""

import os
import subprocess
import sys

import pytest
import torch

from mamba_vision import kernels

pytest.importorskip("triton")


@pytest.mark.parametrize("case", ["groups", "one state", "orders"])
def test_as_the_portable_scan(case):
    env = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, __file__, case], capture_output=True, text=True, env=env, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def run_scan(u, delta, z, y, A, B, C, D, bias, order, strides, sizes, chunk: int) -> None:
    """As in ort_cuda.cpp; sizes: batch, groups, channels, length, state; strides: those of GroupedScan."""
    from mamba_vision.kernels.native import gpu_kernels as gpu

    batch, K, channels, length, N = sizes
    NP = 1 if N == 1 else 16
    padded, chunks, nc, bk = cdiv(length, 128) * 128, cdiv(length, chunk), cdiv(channels, 32), batch * K
    At, rows = torch.full((K * NP * channels,), torch.nan), torch.full((bk * padded * 2 * NP,), torch.nan)
    tiles, ordered = padded // 64, order is not None
    order, z, HAS_Z = (order if ordered else u), (u if z is None else z), z is not None
    order_batch, b_strides = strides["order_batch"], (strides["b_batch"], strides["b_group"], strides["b_row"])
    gpu.pack[(tiles * bk + K * cdiv(channels, 128),)](
        A, B, C, At, rows, order, length, padded, channels, order_batch, *b_strides, tiles, bk, K, N, NP, ordered
    )
    ends, entering = (torch.full((bk * chunks * NP * channels,), torch.nan) for _ in range(2))
    decays = torch.full((bk * chunks * channels,), torch.nan)

    def scan(phase: int) -> None:
        gpu.scan[(nc * chunks * bk,)](
            u, delta, z, y, D, bias, rows, At, ends, decays, entering, order, length, padded, channels, nc, chunks,
            chunk, order_batch, *(strides[name] for name in ("u_batch", "u_group", "y_batch", "y_group", "row")), K, N,
            NP=NP, T=4, PHASE=phase, HAS_Z=HAS_Z and phase != 1, SOFTPLUS=True, ORDER=ordered,
        )  # fmt: skip

    if chunks == 1:
        scan(0)
        return
    scan(1)
    gpu.carry[(nc * NP * bk,)](ends, decays, At, entering, channels, nc, chunks, K, N, NP)
    scan(2)


def check_token_scan(length: int, channels: int, groups: int, N: int, z: bool, chunk: int) -> None:
    batch = 2
    u, delta, gate = (torch.randn(batch, length, channels) for _ in range(3))
    A, D, bias = -torch.rand(channels, N), torch.randn(channels), torch.randn(channels)
    B, C = (torch.randn(batch, length, groups, N) for _ in range(2))
    y = torch.full_like(u, torch.nan)
    part = channels // groups
    strides = dict(order_batch=0, u_batch=length * channels, u_group=part, y_batch=length * channels, y_group=part)
    strides |= dict(row=channels, b_batch=length * groups * N, b_group=N, b_row=groups * N)
    run_scan(
        u, delta, gate if z else None, y, A, B, C, D, bias, None, strides, (batch, groups, part, length, N), chunk
    )  # fmt: skip
    want = kernels.selective_scan(
        u.mT, delta.mT, A, B.permute(0, 2, 3, 1), C.permute(0, 2, 3, 1), D, gate.mT if z else None, bias, True
    )
    torch.testing.assert_close(y, want.mT, rtol=1e-4, atol=1e-4)


def check_ordered_scan() -> None:
    from mamba_vision.kernels.native import gpu_kernels as gpu

    batch, T, K, E, N, R = 2, 36, 2, 40, 5, 18
    x, dt = torch.randn(batch, T, E), torch.randn(batch, T, K, R)
    weight, A, D, bias = torch.randn(K, E, R) / 4, -torch.rand(K, E, N), torch.randn(K, E), torch.randn(K, E)
    B, C = (torch.randn(batch, T, K, N) for _ in range(2))
    order = torch.stack([torch.randperm(T) for _ in range(K)])[None]
    numbers = torch.full(order.shape, -2, dtype=torch.int32)
    strange = order.clone()
    strange[0, 1, :2] = torch.tensor([-5, T])  # no token's numbers
    gpu.token_numbers[(1,)](strange, numbers, order.numel(), T)
    strange[0, 1, :2] = -1
    assert torch.equal(numbers.long(), strange)
    gpu.token_numbers[(1,)](order, numbers, order.numel(), T)
    delta = torch.full((batch, K, T, E), torch.nan)
    gpu.step_sizes[(cdiv(E, 32) * cdiv(T, 64) * batch * K,)](dt, weight, delta, T, E, R, cdiv(T, 64), cdiv(E, 32), K)
    torch.testing.assert_close(delta, torch.einsum("btkr,kcr->bktc", dt, weight), rtol=1e-4, atol=1e-4)
    y, out = torch.full_like(delta, torch.nan), torch.full_like(x, torch.nan)
    strides = dict(order_batch=0, u_batch=T * E, u_group=0, y_batch=K * T * E, y_group=T * E, row=E)
    strides |= dict(b_batch=T * K * N, b_group=N, b_row=K * N)
    run_scan(x, delta, None, y, A, B, C, D, bias, numbers, strides, (batch, K, E, T, N), 16)
    gpu.add_orders[(cdiv(T * E, 1024) * batch,)](y, out, T * E, cdiv(T * E, 1024), K)
    arguments = (x, order[0], dt, weight, A, B, C, D, bias, None, None, None)
    want, _ = torch.ops.mamba_vision.ordered_scan(*arguments, True, True, True, False, "portable")
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    torch.manual_seed(0)
    with kernels.use_backend("portable"):
        if sys.argv[1] == "groups":
            check_token_scan(18, 80, 2, 5, z=True, chunk=18)
            check_token_scan(36, 40, 1, 16, z=False, chunk=16)
        elif sys.argv[1] == "one state":
            check_token_scan(36, 40, 1, 1, z=False, chunk=16)
        else:
            check_ordered_scan()
