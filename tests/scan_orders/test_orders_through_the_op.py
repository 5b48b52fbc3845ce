"""Scan orders inside the kernel that scans along them."""

import pytest
import torch

from mamba_vision.kernels import ordered_scan
from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders import gather_tokens, return_as_published, return_tokens


@pytest.mark.parametrize(
    "spec",
    ["cross", dict(type="local", directions=["h", "v", "w2", "w3_flip"]), dict(type="prompted", prompts=2)],
    ids=str,
)
def test_ordered_scan_agrees_with_gather_and_return(spec: object) -> None:
    """The kernel's own gathering and merging, the zero token included, is what these helpers do."""
    orders = SCAN_ORDERS.build(spec)((3, 4))
    K, L = orders.indices.shape
    batch, channels, state = 2, 3, 2
    x = torch.randn(batch, orders.tokens, channels)
    dt, B, C = torch.randn(batch, K, L, channels), torch.randn(batch, K, L, state), torch.randn(batch, K, L, state)
    A, D, bias = -torch.rand(K, channels, state), torch.randn(K, channels), torch.randn(K, channels)
    got = ordered_scan(x, orders.indices, dt, None, A, B, C, D, bias, merge="none")

    u, delta = gather_tokens(x, orders), torch.nn.functional.softplus(dt + bias[:, None])
    h, steps = torch.zeros(batch, K, channels, state), []
    for step in range(L):
        d = delta[:, :, step, :, None]
        h = torch.exp(d * A) * h + d * B[:, :, step, None] * u[:, :, step, :, None]
        steps.append((h * C[:, :, step, None]).sum(-1) + D * u[:, :, step])
    expected = return_tokens(torch.stack(steps, 2), orders)
    torch.testing.assert_close(return_as_published(got, orders), expected)
