"""Tensors that start at odd addresses, as views into one flat buffer of all parameters do (FSDP): the same results."""

import pytest
import torch
from oracle import relative_error
from test_triton_gpu import on_gpu, order_inputs, run_order, run_scan, scan_inputs  # noqa: F401

from mamba_vision.kernels import causal_conv1d

pytestmark = pytest.mark.gpu


def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The same tensor, strides included, one element past an aligned address."""
    if tensor is None:
        return None
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    memory = torch.empty(extent + 1, dtype=tensor.dtype, device=tensor.device)
    view = memory[1:].as_strided(tensor.shape, tensor.stride(), 1)
    view.copy_(tensor.detach())
    assert view.data_ptr() % 16
    return view.requires_grad_(tensor.requires_grad)


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for got, want in zip(found, expected, strict=True):
        assert relative_error(got, want) < (1e-5 if got.dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("state", "channels"), [(1, 96), (16, 96), (16, 33)])
def test_selective_scan(dtype, state, channels):
    arguments = scan_inputs(state=state, channels=channels, dtype=dtype)
    expected = run_scan(arguments)
    for name in arguments:
        assert_same(run_scan({**arguments, name: moved(arguments[name])}), expected)
    assert_same(run_scan({name: moved(value) for name, value in arguments.items()}), expected)
    assert_same(run_scan(arguments), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", [1, 16])
def test_ordered_scan(dtype, state):
    arguments = order_inputs(state=state, dtype=dtype)
    expected = run_order(arguments)
    assert_same(run_order([moved(argument) for argument in arguments]), expected)
    assert_same(run_order(arguments), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_causal_conv1d(dtype, channels_last):
    x = torch.randn(2, 96, 197, device="cuda", dtype=dtype)
    if channels_last:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    weight, bias = torch.randn(96, 4, device="cuda"), torch.randn(96, device="cuda")
    arguments = [tensor.requires_grad_() for tensor in (x, weight, bias)]

    def run(arguments):
        out = causal_conv1d(*arguments, activation="silu")
        return [out, *torch.autograd.grad(out.float().square().sum(), arguments)]

    expected = run(arguments)
    assert_same(run([moved(argument) for argument in arguments]), expected)
    assert_same(run(arguments), expected)
