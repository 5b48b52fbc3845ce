"""What PyTorch's counter says of the ops: the published count of a scan, and products as usual."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mamba_vision.kernels import causal_conv1d, ordered_scan, selective_scan
from mamba_vision.kernels.flops import scan_flops

B, L, D, N, K, R, W = 2, 7, 6, 4, 3, 2, 4


def counted(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("gate", [False, True])
def test_selective_scan(device, skip, gate):
    u, delta, z = (torch.randn(B, D, L, device=device) for _ in range(3))
    A, M = -torch.rand(D, N, device=device), torch.randn(B, N, L, device=device)
    skips = torch.ones(D, device=device) if skip else None
    found = counted(lambda: selective_scan(u, delta, A, M, M, skips, z if gate else None))
    assert found == scan_flops(B * L, D, N, skip, gate) == B * (9 * L * D * N + skip * L * D + gate * L * D)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("rows", ["steps", "tokens"])
def test_ordered_scan(device, rows):
    x = torch.randn(B, L, D, device=device)
    order = torch.stack([torch.randperm(L) for _ in range(K)]).to(device)
    where = (B, K, L) if rows == "steps" else (B, L, K)
    dt, M = torch.randn(*where, R, device=device), torch.randn(*where, N, device=device)
    A, weight = -torch.rand(K, D, N, device=device), torch.randn(K, D, R, device=device)
    conv = (torch.randn(K, D, W, device=device), None)
    D_KD = torch.ones(K, D, device=device)
    scan = B * K * (9 * L * D * N + L * D)
    assert counted(lambda: ordered_scan(x, order, dt, weight, A, M, M, D_KD, rows=rows)) == scan + 2 * B * K * L * D * R
    full = torch.randn(*where, D, device=device)
    found = counted(lambda: ordered_scan(x, order, full, None, A, M, M, D_KD, z=x, conv=conv, rows=rows))
    assert found == scan + B * L * D + 2 * B * K * L * D * W


def test_convolution_and_backward():
    x = torch.randn(B, D, L, requires_grad=True)
    weight = torch.randn(D, W)
    forward = 2 * B * D * L * W
    assert counted(lambda: causal_conv1d(x, weight)) == forward
    assert counted(lambda: causal_conv1d(x, weight).sum().backward()) == 3 * forward
    A, M = -torch.rand(D, N), torch.randn(B, N, L)
    assert counted(lambda: selective_scan(x, x, A, M, M).sum().backward()) == 3 * scan_flops(B * L, D, N, skip=False)
