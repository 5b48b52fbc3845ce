"""MONAI's blocks with less kept for backward: the same results and gradients."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mamba_vision.kernels import use_backend
from mamba_vision.models.layers import recompute
from mamba_vision.models.layers.unetr_blocks import UpBlock
from mamba_vision.registry import MODELS


@pytest.mark.parametrize("res_block", [True, False])
def test_joined_volumes_are_not_kept(res_block, monkeypatch):
    """An up block joins again in backward: the same gradients, without a kept tensor of the joined width."""
    torch.manual_seed(0)
    block = UpBlock(6, 5, "instance", res_block).double()
    x = torch.randn(1, 6, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(1, 5, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    leaves = (x, skip, *(p for p in block.parameters()))
    want_y = block.conv_block(block.join(x, skip))
    want = torch.autograd.grad(want_y.square().sum(), leaves)
    monkeypatch.setattr(recompute, "_short_of_memory", lambda x: True)
    kept, products = [], Convolutions()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        y = block(x, skip)
    with products:
        got = torch.autograd.grad(y.square().sum(), leaves)
    torch.testing.assert_close(y, want_y)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)
    assert (1, 10, 8, 8, 8) not in kept
    assert sum(wide == 10 for wide in products.read) == res_block  # the 1x1x1 one; that of side 3 comes last


class Convolutions(TorchDispatchMode):
    """Channels that forward convolutions read."""

    def __init__(self):
        super().__init__()
        self.read = []

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        if operator is torch.ops.aten.convolution.default and not arguments[6]:
            self.read.append(arguments[0].shape[1])
        return operator(*arguments, **(options or {}))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_segmamba_on_a_gpu(dtype):
    """Autocast and CUDA graphs: as exact as the portable path in the same precision."""
    from mamba_vision.models.cuda_graphs import cuda_graphed

    network = MODELS.build(dict(type="SegMamba", arch="brats2023", depths=(1, 1, 1, 1))).cuda()
    x = torch.randn(1, 4, 64, 80, 48, device="cuda")
    grad = torch.randn(1, 4, 64, 80, 48, device="cuda")

    def run(half: bool) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cuda", dtype=dtype, enabled=half):
            y = network(x)
        gradients = torch.autograd.grad(y, tuple(network.parameters()), grad.to(y.dtype), allow_unused=True)
        return y.detach().float(), torch.cat([g.flatten().float() for g in gradients if g is not None])

    def error(got: torch.Tensor, want: torch.Tensor) -> float:
        return float((got - want).norm() / want.norm())

    exact, ours = run(False), run(True)
    with use_backend("portable"):
        portable = run(True)
    for got, other, want in zip(ours, portable, exact):
        assert error(got, want) < 1.3 * error(other, want)
    cuda_graphed(network, inference=1, training=0)
    with torch.no_grad(), torch.autocast("cuda", dtype=dtype):
        assert error(network(x).float(), ours[0]) < 1e-3
        assert error(network(x).float(), ours[0]) < 1e-3
