"""The ops as torch.library operators: compile, export, autocast, checkpointing, and what opcheck looks at."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from oracle import relative_error, scan_inputs
from torch.utils.checkpoint import checkpoint

from mamba_vision.kernels import causal_conv1d, ordered_scan, selective_scan, ssd


class Layer(torch.nn.Module):
    """Convolution, projections and scan: a small Mamba core, tokens channels-last."""

    def __init__(self, channels: int = 8, state: int = 4):
        super().__init__()
        self.conv = torch.nn.Conv1d(channels, channels, 4, groups=channels)
        self.project = torch.nn.Linear(channels, channels + 2 * state)
        self.A_log = torch.nn.Parameter(torch.rand(channels, state))
        self.D = torch.nn.Parameter(torch.ones(channels))
        self.bias = torch.nn.Parameter(torch.rand(channels) - 3)
        self.sizes = (channels, state, state)

    def forward(self, x):
        u = causal_conv1d(x.transpose(1, 2), self.conv.weight.squeeze(1), self.conv.bias, "silu")
        delta, B, C = self.project(u.transpose(1, 2)).transpose(1, 2).split(self.sizes, dim=1)
        A = -torch.exp(self.A_log.float())
        y = selective_scan(u, delta, A, B, C, self.D, delta_bias=self.bias, delta_softplus=True)
        return y.transpose(1, 2)


class OrderedLayer(Layer):
    """The same along two orders."""

    def forward(self, x):
        order = torch.stack([torch.arange(x.shape[1]), torch.arange(x.shape[1]).flip(0)])
        delta, B, C = self.project(x).unsqueeze(2).expand(-1, -1, 2, -1).split(self.sizes, dim=-1)
        A = -torch.exp(self.A_log.float()).expand(2, -1, -1)
        return ordered_scan(x, order, delta, None, A, B, C, rows="tokens")


class SsdLayer(Layer):
    """The same with the recurrence of Mamba-2."""

    def forward(self, x):
        delta, B, C = self.project(x).split(self.sizes, dim=-1)
        return ssd(x.unsqueeze(-1), delta, -self.A_log[:, 0].exp(), B.unsqueeze(2), C.unsqueeze(2)).squeeze(-1)


LAYERS = pytest.mark.parametrize("kind", [Layer, OrderedLayer, SsdLayer])


def gradients(function, layer, x):
    layer.zero_grad()
    function(x).square().sum().backward()
    return [p.grad.clone() for p in layer.parameters() if p.grad is not None]


@LAYERS
def test_compile_without_graph_break(kind):
    layer = kind()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 19, 8)
    for got, want in zip(gradients(compiled, layer, x), gradients(layer, layer, x)):
        torch.testing.assert_close(got, want)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("kind", [Layer, OrderedLayer])
def test_compile_with_any_length(kind):
    layer = kind()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (33, 70, 300):
        x = torch.randn(2, length, 8)
        for got, want in zip(gradients(compiled, layer, x), gradients(layer, layer, x)):
            torch.testing.assert_close(got, want)


def calls(program, name: str) -> int:
    return sum(name in str(node.target) for node in program.graph.nodes if node.op == "call_function")


def test_export_is_one_node_for_any_size():
    layer = Layer()
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    program = torch.export.export(layer, (torch.randn(2, 19, 8),), dynamic_shapes=({0: batch, 1: length},))
    assert calls(program, "mamba_vision.selective_scan") == calls(program, "mamba_vision.causal_conv1d") == 1
    x = torch.randn(3, 50, 8)
    torch.testing.assert_close(program.module()(x), layer(x))


def test_exported_ordered_scan_is_indexing_around_the_scan():
    layer = OrderedLayer()
    length = torch.export.Dim("length")
    program = torch.export.export(layer, (torch.randn(2, 19, 8),), dynamic_shapes=({1: length},))
    assert calls(program, "mamba_vision.selective_scan") == 1
    assert calls(program, "mamba_vision.ordered_scan") == 0
    x = torch.randn(2, 31, 8)
    torch.testing.assert_close(program.module()(x), layer(x))


def test_exported_program_can_be_trained():
    """An exported graph keeps nothing for backward, which then rebuilds it."""
    layer = Layer()
    x = torch.randn(2, 19, 8)
    program = torch.export.export(layer, (x,)).module()
    for got, want in zip(gradients(program, program, x), gradients(layer, layer, x)):
        torch.testing.assert_close(got, want)


@LAYERS
def test_autocast_keeps_the_state_in_float32(kind):
    """Half projections go in as they are; nothing inside the op is cast to half."""
    layer = kind()
    x = torch.randn(2, 200, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        y.float().sum().backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None
    )
    assert relative_error(y, layer(x)) < 3e-2
    inputs = {k: v.bfloat16() if k in ("u", "delta", "B", "C", "z") else v.float() for k, v in scan_inputs().items()}
    with torch.autocast("cpu", torch.bfloat16):
        inside, state = selective_scan(**inputs, return_last_state=True, delta_softplus=True)
    outside, want = selective_scan(**inputs, return_last_state=True, delta_softplus=True)
    assert inside.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert torch.equal(inside, outside) and torch.equal(state, want)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant):
    layer = Layer()
    x = torch.randn(2, 19, 8, requires_grad=True)
    want = gradients(layer, layer, x)
    got = gradients(lambda x: checkpoint(layer, x, use_reentrant=reentrant), layer, x)
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)


def test_inference_mode_before_training():
    """Memory kept from inference is fit for training, on every thread."""

    def run():
        layer = Layer()
        with torch.inference_mode():
            layer(torch.randn(2, 19, 8))
        return gradients(layer, layer, torch.randn(2, 19, 8))

    with ThreadPoolExecutor(1) as fresh_thread:
        assert all(g.isfinite().all() for g in fresh_thread.submit(run).result())


def test_another_default_device():
    """Memory of an op lies where its inputs lie, whatever `torch.set_default_device` says."""

    def run():
        layer, x = Layer(), torch.randn(2, 19, 8)
        with torch.device("meta"):
            return layer(x)

    with ThreadPoolExecutor(1) as fresh_thread:
        assert fresh_thread.submit(run).result().isfinite().all()


def test_only_the_wanted_gradients():
    """Inputs without gradient get none; an unused output costs no gradient."""
    inputs = {k: v.float() for k, v in scan_inputs().items()}
    inputs["u"].requires_grad_()
    y, state = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    (from_state,) = torch.autograd.grad(state.sum(), inputs["u"], retain_graph=True)
    (from_y,) = torch.autograd.grad(y.sum(), inputs["u"], retain_graph=True)
    (both,) = torch.autograd.grad(y.sum() + state.sum(), inputs["u"])
    torch.testing.assert_close(from_state + from_y, both)


def test_opcheck():
    ops = torch.ops.mamba_vision

    def leaf(*shape):
        return torch.randn(shape, requires_grad=True)

    u = torch.randn(2, 19, 6).transpose(1, 2).requires_grad_()
    A = (-torch.rand(6, 4)).requires_grad_()
    B = leaf(2, 2, 4, 19)
    inputs = (u, leaf(2, 6, 19), A, B, leaf(6, 4), leaf(6), leaf(2, 6, 19), leaf(6), leaf(2, 6, 4))
    torch.library.opcheck(ops.selective_scan.default, (*inputs, True, torch.float32, True, "portable"))
    inputs = (u, leaf(6, 4), leaf(6), leaf(2, 6, 3), None)
    torch.library.opcheck(ops.causal_conv1d.default, (*inputs, True, "portable"))
    order = torch.randint(-1, 7, (3, 9))
    A, B = (-torch.rand(3, 4, 5)).requires_grad_(), leaf(2, 3, 9, 5)
    inputs = (leaf(2, 7, 4), order, leaf(2, 3, 9, 2), leaf(3, 4, 2), A, B, B, None, None, leaf(2, 7, 4))
    convolution = (leaf(3, 4, 2), None)
    torch.library.opcheck(ops.ordered_scan.default, (*inputs, *convolution, True, False, True, True, "portable"))
