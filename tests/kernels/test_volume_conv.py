"""volume_conv: random shapes and dtypes against the definition, every gradient; what a GPU alone can show; errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import compare, relative_error
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mamba_vision.kernels import use_backend, volume_conv
from mamba_vision.kernels.volume_conv import choice
from mamba_vision.kernels.volume_conv import op as volume_conv_op

LAST = torch.channels_last_3d


@pytest.fixture
def always(monkeypatch) -> None:
    """The kernel runs wherever it can."""
    monkeypatch.setattr(choice, "forward_pays", lambda x, weight: x.dtype != torch.float64)
    monkeypatch.setattr(choice, "gradient_pays", lambda weight: True)
    monkeypatch.setattr(choice, "measured_on", lambda device: True)


@pytest.mark.usefixtures("always")
def test_random_shapes(backend):
    @settings(max_examples=min(backend.examples, 20), deadline=None, database=None, derandomize=True)
    @given(
        batch=st.integers(1, 2),
        channels=st.tuples(st.sampled_from([3, 16, 24, 48, 70]), st.sampled_from([5, 16, 48])),
        grid=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9)),
        bias=st.booleans(),
        dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    )
    def check(batch, channels, grid, bias, dtype):
        if backend.name == "triton":
            # on a GPU the kernel rounds float32, for which it is never chosen; the interpreter multiplies no bfloat16
            wrong = torch.float32 if backend.device == "cuda" else torch.bfloat16
            dtype = torch.float16 if dtype == wrong else dtype
        torch.manual_seed(0)
        inputs = {
            "x": torch.randn(batch, channels[0], *grid, dtype=torch.float64),
            "weight": torch.randn(channels[1], channels[0], 3, 3, 3, dtype=torch.float64),
            "bias": torch.randn(channels[1], dtype=torch.float64) if bias else None,
        }

        def op(x, weight, bias):
            # PyTorch 2.15 on a CPU gives weights a gradient of unwritten memory: bfloat16, channels-last, sides of 1
            last = backend.device == "cuda" or backend.name == "triton"
            return volume_conv(x.contiguous(memory_format=LAST) if last else x, weight, bias)

        compare(op, inputs, backend.device, dtype)

    check()


def small(device: str, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    x = torch.randn(1, 16, 3, 4, 5, device=device, dtype=dtype).contiguous(memory_format=LAST)
    weight = torch.randn(16, 16, 3, 3, 3, device=device, dtype=dtype)
    return [t.requires_grad_() for t in (x, weight, torch.randn(16, device=device, dtype=dtype))]


@pytest.mark.usefixtures("always")
def test_operator_as_compilers_see_it(backend, monkeypatch):
    if backend.name != "triton":
        return  # PyTorch's own convolution
    inputs = small(backend.device, torch.float32 if backend.device == "cpu" else torch.bfloat16)
    torch.library.opcheck(
        torch.ops.mamba_vision.volume_conv, tuple(inputs), test_utils=("test_schema", "test_faketensor")
    )
    want = volume_conv(*inputs)
    grad = torch.randn_like(want)
    gradients = torch.autograd.grad(want, inputs, grad)
    compiled = torch.compile(volume_conv, backend="aot_eager", fullgraph=True)(*inputs)
    assert torch.equal(compiled, want) and compiled.stride() == want.stride()
    for one, other in zip(torch.autograd.grad(compiled, inputs, grad), gradients, strict=True):
        assert relative_error(one, other) < 1e-6
    with FlopCounterMode(display=False) as ours:
        volume_conv(*inputs).sum().backward()
    with FlopCounterMode(display=False) as pytorch:
        F.conv3d(*inputs, padding=1).sum().backward()
    assert ours.get_total_flops() == pytorch.get_total_flops() > 0
    monkeypatch.setattr(choice, "measured_on", lambda device: False)  # another GPU: the operator is PyTorch's
    assert relative_error(torch.compile(volume_conv, backend="aot_eager")(*inputs), want) < 1e-2
    (only,) = torch.autograd.grad(volume_conv(inputs[0].detach(), *inputs[1:]), inputs[1], grad)
    assert relative_error(only, gradients[1]) < 1e-6


@pytest.mark.usefixtures("always")
def test_checkpointing_does_not_convolve_twice(monkeypatch):
    runs = []

    def write(x, weight, bias, y):
        runs.append("forward")
        y.copy_(F.conv3d(x, weight, bias, padding=1))

    monkeypatch.setattr(volume_conv_op, "choose", lambda op, x: "triton")
    monkeypatch.setattr(choice, "gradient_pays", lambda weight: False)
    monkeypatch.setattr(volume_conv_op, "_write", write)
    inputs = small("cpu")
    again = checkpoint(lambda x, *others: volume_conv(x.sin(), *others), *inputs, use_reentrant=False)
    want = F.conv3d(inputs[0].sin(), *inputs[1:], padding=1)
    grad = torch.randn_like(want)
    pairs = zip(torch.autograd.grad(again, inputs, grad), torch.autograd.grad(want, inputs, grad), strict=True)
    assert all(relative_error(one, other) < 1e-5 for one, other in pairs)
    assert runs == ["forward"]


def test_errors():
    x, weight = torch.randn(1, 2, 3, 3, 3), torch.randn(4, 2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 3, 3\), expected \(batch, channels, D, H, W\)"):
        volume_conv(x[0], weight)
    with pytest.raises(ValueError, match=r"weight has shape \(4, 1, 3, 3, 3\), expected \(4, 2, 3, 3, 3\)"):
        volume_conv(x, weight[:, :1])
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), expected \(4,\)"):
        volume_conv(x, weight, torch.ones(3))
    with pytest.raises(ValueError, match="bias has dtype"):
        volume_conv(x, weight, torch.ones(4, dtype=torch.int64))


def large(channels: tuple[int, int], grid: tuple[int, int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    x = torch.randn(2, channels[0], *grid, device="cuda", dtype=dtype).contiguous(memory_format=LAST)
    weight = torch.randn(channels[1], channels[0], 3, 3, 3, device="cuda") / (27 * channels[0]) ** 0.5
    return [t.requires_grad_() for t in (x, weight.to(dtype), torch.randn(channels[1], device="cuda", dtype=dtype))]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("channels", sorted(choice.FORWARD))
def test_large_volumes(channels, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    inputs = large(channels, (67, 41, 53), dtype)
    assert choice.forward_pays(*inputs[:2])
    for t in (torch.full((2**25,), float("nan"), device="cuda") for _ in range(3)):  # every element must be written
        del t
    got = volume_conv(*inputs)
    exact = [t.detach().float().requires_grad_() for t in inputs]
    want = F.conv3d(*exact, padding=1)
    grad = torch.randn_like(got)
    found = [got, *torch.autograd.grad(got, inputs, grad)]
    wanted = [want, *torch.autograd.grad(want, exact, grad.float())]
    with use_backend("portable"):
        cudnn = volume_conv(*inputs)
        others = [cudnn, *torch.autograd.grad(cudnn, inputs, grad)]
    for one, other, exactly in zip(found, others, wanted, strict=True):
        assert relative_error(one, exactly) < 1.1 * relative_error(other, exactly) + 1e-6
    again = volume_conv(*inputs)
    assert torch.equal(again, got) and torch.equal(torch.autograd.grad(again, inputs[0], grad)[0], found[1])
    with torch.no_grad():
        compiled = torch.compile(volume_conv, fullgraph=True)(*inputs)
    assert torch.equal(compiled, got)


@pytest.mark.gpu
def test_more_than_two_to_the_31_elements(monkeypatch):
    monkeypatch.setattr(choice, "forward_pays", lambda x, weight: True)
    x = torch.zeros(1, 360, 360, 361, 48, device="cuda", dtype=torch.bfloat16).movedim(-1, 1)  # 2.25e9
    x[:, :, -4:].normal_()
    weight = torch.randn(48, 48, 3, 3, 3, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        end = volume_conv(x, weight)[:, :, -3:].clone()
        want = volume_conv(x[:, :, -4:].contiguous(memory_format=LAST), weight)[:, :, -3:]
    assert torch.equal(end, want)
