"""The selective scan as its published Python form computes it, to compare speeds with. Not for use."""

import statistics
import time

import torch
import torch.nn.functional as F

from mamba_vision.kernels.backends import use_backend
from mamba_vision.kernels.selective_scan import selective_scan


def materializing_scan(u, delta, A, B, C, D, z, delta_bias):
    """The common way to write the scan without a kernel: all decays and inputs of the state first, then a loop.

    Softplus is on. u, delta, z (batch, channels, length); A (channels, state); B, C (batch, state, length).
    """
    step = F.softplus(delta + delta_bias[:, None])
    decays = torch.exp(torch.einsum("bdl,dn->bdln", step, A))
    added = torch.einsum("bdl,bnl,bdl->bdln", step, B, u)
    state = A.new_zeros(u.shape[0], *A.shape)
    ys = []
    for t in range(u.shape[2]):
        state = decays[:, :, t] * state + added[:, :, t]
        ys.append(torch.einsum("bdn,bn->bd", state, C[:, :, t]))
    return (torch.stack(ys, dim=2) + u * D[:, None]) * F.silu(z)


def compare_with_materializing_scan(
    batch: int = 1, channels: int = 384, length: int = 197, state: int = 16, repeats: int = 5
) -> dict[str, float]:
    """Time the portable scan and the materializing one side by side on one CPU thread; default: a Vim-tiny layer.

    They take turns. In its turn each runs twice and the second run counts, as in a network, whose scan finds the
    caches as the one of the layer before it left them, and not as another algorithm did.

    Returns:
        CPU milliseconds, medians over the turns: portable_forward, materializing_forward, portable_both and
        materializing_both (forward and backward), and the ratios speedup_forward and speedup_both.
    """
    shape = (batch, channels, length)
    u, delta, z = (torch.randn(shape) for _ in range(3))
    A = -torch.arange(1, state + 1, dtype=torch.float32).repeat(channels, 1)
    B, C = (torch.randn(batch, state, length) for _ in range(2))
    D, bias = torch.ones(channels), torch.rand(channels) - 4
    leaves = [t.requires_grad_() for t in (u, delta, A, B, C, D, z, bias)]

    def portable():
        with use_backend("portable"):
            return selective_scan(*leaves, delta_softplus=True)

    def forward(scan):
        with torch.no_grad():
            scan()

    def both(scan):
        torch.autograd.grad(scan().sum(), leaves)

    runs = {
        "portable_forward": lambda: forward(portable),
        "materializing_forward": lambda: forward(lambda: materializing_scan(*leaves)),
        "portable_both": lambda: both(portable),
        "materializing_both": lambda: both(lambda: materializing_scan(*leaves)),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                run()
                start = time.process_time()
                run()
                times[name].append(1e3 * (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    result = {name: statistics.median(values) for name, values in times.items()}
    result["speedup_forward"] = result["materializing_forward"] / result["portable_forward"]
    result["speedup_both"] = result["materializing_both"] / result["portable_both"]
    return result
