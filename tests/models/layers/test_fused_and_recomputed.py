"""The paths that blocks take on a GPU, fused norms and recomputed activations, on the CPU: the same results."""

import pytest
import torch

from mamba_vision.kernels.backends import requested_backend, use_backend
from mamba_vision.models.layers import fused_norm, recompute
from mamba_vision.registry import MODELS

NETWORKS = {
    "vmamba": (dict(type="VMamba", arch="test"), (2, 3, 32, 32)),
    "vim": (dict(type="Vim", arch="test", img_size=32), (2, 3, 32, 32)),
    "vim checkpointed": (dict(type="Vim", arch="test", img_size=32, with_cp=True), (2, 3, 32, 32)),
}


def results(network, x, grad=None):
    """The last feature and the gradients of the input and all parameters."""
    x = x.clone().requires_grad_()
    out = network(x)[-1]
    leaves = [p for p in network.parameters() if p.requires_grad]
    found = torch.autograd.grad(out, (x, *leaves), torch.ones_like(out) if grad is None else grad, allow_unused=True)
    return [out, *(g for g in found if g is not None)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_networks_do_not_change(name, half, monkeypatch):
    config, size = NETWORKS[name]
    torch.manual_seed(0)
    network = MODELS.build(config).train()
    x = torch.randn(size)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        want = results(network, x)
        used = []
        monkeypatch.setattr(recompute, "_short_of_memory", lambda tensor: used.append("again") or True)
        if not half:  # on the CPU, autocast rounds norms in its own way
            monkeypatch.setattr(fused_norm, "_kernel_runs", lambda norm, x: used.append("fused") or True)
        got = results(network, x)
    assert len(set(used)) == (1 if half else 2)
    for one, other in zip(got, want):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5 if not half else 1e-3)


def test_the_second_time_runs_on_the_first_ones_backend(monkeypatch):
    monkeypatch.setattr(recompute, "_short_of_memory", lambda tensor: True)
    seen = []

    def squared(x):
        seen.append(requested_backend())
        return x.square().square()

    with use_backend("reference"):
        out = recompute.recomputed(squared, torch.ones(2, requires_grad=True))
    out.sum().backward()
    assert seen == ["reference", "reference"]


@pytest.mark.parametrize("name", ["VMamba", "LocalVMamba", "MambaIR", "MambaIRv2"])
def test_networks_of_float16(name):
    """Their scans add up in float32, which a norm of float16 weights takes."""
    network = MODELS.build(dict(type=name, arch="tiny" if "IR" in name else "test")).eval()
    x = torch.rand(1, 3, 32, 32)
    want = network(x)
    got = network.half()(x.half())
    want, got = (want, got) if torch.is_tensor(want) else (want[-1], got[-1])
    assert got.dtype == torch.float16 and (got - want).norm() < 0.02 * want.norm()
    got.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
