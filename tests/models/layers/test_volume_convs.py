"""Convolutions over volumes by products of matrices or with taps as channels: the same results and gradients."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mamba_vision.kernels import use_backend
from mamba_vision.models.layers import recompute, volume_convs
from mamba_vision.models.layers.channels_last import volume_layout
from mamba_vision.models.layers.unetr_blocks import UpBlock
from mamba_vision.registry import MODELS


@pytest.mark.parametrize("bias", [True, False])
def test_as_convolution(bias, monkeypatch):
    monkeypatch.setattr(volume_convs, "_fast_dtype", lambda x: torch.float64)
    monkeypatch.setattr(volume_convs, "LEAST", 16)  # 315 voxels in parts, and some left over
    conv = nn.Conv3d(6, 10, 1, bias=bias).double()
    x = torch.randn(1, 6, 5, 7, 9, dtype=torch.float64, requires_grad=True)
    got, want = volume_convs.pointwise(conv, x), conv(x)
    torch.testing.assert_close(got, want)
    leaves, grad = (x, *conv.parameters()), torch.randn_like(want)
    pairs = zip(torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, leaves, grad), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-4)  # a weight's gradient is a sum in float32


CONVS = [
    dict(in_channels=4, kernel_size=3, padding=1),
    dict(in_channels=4, kernel_size=7, stride=2, padding=3, bias=False),
    dict(in_channels=1, kernel_size=3, padding=1),
    dict(in_channels=3, kernel_size=(1, 3, 5), stride=(1, 2, 3), padding=(0, 2, 0)),
    dict(in_channels=2, kernel_size=(3, 3, 2)),
    dict(in_channels=6, kernel_size=3, padding=1),
    dict(in_channels=4, kernel_size=1),
    dict(in_channels=4, kernel_size=3, padding=2, dilation=2),
    dict(in_channels=4, kernel_size=3, padding="same"),
    dict(in_channels=4, kernel_size=3, groups=2),
    dict(in_channels=4, kernel_size=3, padding=1, padding_mode="replicate"),
]


@pytest.mark.parametrize("settings", CONVS, ids=str)
@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_few_channels_as_convolution(settings, again, monkeypatch):
    monkeypatch.setattr(volume_convs, "_fast_dtype", lambda x: torch.float64)
    monkeypatch.setattr(recompute, "_short_of_memory", lambda x: again)
    conv = nn.Conv3d(**settings, out_channels=10).double()
    x = torch.randn(2, conv.in_channels, 8, 7, 9, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    got, want = volume_convs.few_channels(conv, x), conv(x)
    torch.testing.assert_close(got, want)
    leaves, grad = (x, *conv.parameters()), torch.randn_like(want)
    pairs = zip(torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, leaves, grad), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_taps_as_channels_are_eight_and_computed_again(monkeypatch):
    seen = []

    def conv3d(x, weight, *others):
        seen.append((x.shape[1], tuple(weight.shape[2:])))
        return original(x, weight, *others)

    original = F.conv3d
    monkeypatch.setattr(F, "conv3d", conv3d)
    monkeypatch.setattr(volume_convs, "_fast_dtype", lambda x: torch.float32)
    monkeypatch.setattr(recompute, "_short_of_memory", lambda x: True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        for channels, side in ((4, 3), (4, 7), (1, 5), (3, 3)):
            conv = nn.Conv3d(channels, 8, side, padding=side // 2)
            recompute.recomputed(partial(volume_convs.few_channels, conv), torch.randn(1, channels, 8, 8, 8))
    assert seen == [(16, (3, 3, 1)), (32, (7, 7, 1)), (8, (5, 5, 1)), (24, (3, 3, 1))]
    assert kept and all(len(shape) == 1 or shape[1] <= 4 for shape in kept)  # no unfolded volume


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
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        y = block(x, skip)
    got = torch.autograd.grad(y.square().sum(), leaves)
    torch.testing.assert_close(y, want_y)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other)
    assert (1, 10, 8, 8, 8) not in kept


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


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [4, 48])
def test_few_channels_on_a_gpu(channels):
    """In a graph, in autocast and for a compiler, against float32."""
    conv = nn.Conv3d(channels, 48, 3, padding=1).cuda()
    x = torch.randn(2, channels, 65, 47, 51, device="cuda")
    with torch.no_grad():
        want = F.conv3d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            last = volume_layout(x)
            got = volume_convs.few_channels(conv, last)
            compiled = torch.compile(lambda x: volume_convs.few_channels(conv, x), backend="aot_eager", fullgraph=True)(
                last
            )
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                captured = volume_convs.few_channels(conv, last)
    last.copy_(last.flip(0))
    graph.replay()
    for result in (got, compiled, captured.flip(0)):
        assert result.dtype == torch.bfloat16 and result.is_contiguous(memory_format=torch.channels_last_3d)
        assert (result.double() - want).norm() < 4e-3 * want.norm()
