"""The causal convolution on a GPU, in Triton; the contract is in kernels/README.md. float64 runs portably."""

import torch

from mamba_vision.kernels.causal_conv1d import portable
from mamba_vision.kernels.causal_conv1d import triton_kernels as kernels
from mamba_vision.kernels.causal_conv1d import triton_rows as rows
from mamba_vision.kernels.triton_common import capped, cdiv, power_of_two
from mamba_vision.kernels.triton_launcher import launch
from mamba_vision.kernels.triton_notice import announce_compilation


def forward(x, weight, bias, initial_states, seq_idx, silu):
    """Outputs and the last width - 1 inputs."""
    if x.dtype == torch.float64:
        return portable.forward(x, weight, bias, initial_states, seq_idx, silu)
    initial_states, bias = _dense(initial_states), _dense(bias)
    out = torch.empty_like(x)
    final = _final_states(x, initial_states, weight.shape[1])
    if x.numel():
        with torch.cuda.device_of(x):
            launch_forward(_rows(x), weight, bias, initial_states, seq_idx, _rows(out), silu)
    return out, final


def backward(grad_out, grad_final, x, weight, bias, initial_states, seq_idx, silu):
    """Gradients of x, weight, bias and initial_states."""
    if x.dtype == torch.float64:
        return portable.backward(grad_out, grad_final, x, weight, bias, initial_states, seq_idx, silu)
    if not x.numel():
        return tuple(None if t is None else torch.zeros_like(t) for t in (x, weight, bias, initial_states))
    initial_states, bias = _dense(initial_states), _dense(bias)
    dx = torch.empty_like(x)
    dinitial = None if initial_states is None else torch.empty_like(initial_states)
    with torch.cuda.device_of(x):
        dweight, dbias = launch_backward(
            _rows(grad_out), _rows(x), weight, bias, initial_states, seq_idx, _rows(dx), dinitial, silu
        )  # fmt: skip
    if grad_final is not None and grad_final.shape[2]:
        kept = min(x.shape[2], grad_final.shape[2])  # of the final state, these are inputs; before them initial states
        dx[:, :, x.shape[2] - kept :] += grad_final[:, :, grad_final.shape[2] - kept :]
        if dinitial is not None and kept < grad_final.shape[2]:
            dinitial[:, :, kept:] += grad_final[:, :, : grad_final.shape[2] - kept]
    return dx, dweight, dbias, dinitial


def launch_forward(x, weight, bias, initial, seq, y, silu: bool, order=None) -> None:
    """Fill y (b, k, step, c) from x (b, k, row, c); weight (k c, width), bias (k c)."""
    announce_compilation()
    batch, K, length, channels = y.shape
    width = weight.shape[1]
    if V := _vector(width, initial, seq, x, y):
        nc, runs, steps = _runs(batch * K, length, channels, V, width)
        launch(
            rows.rows_forward, nc * runs * batch * K,
            x, weight.contiguous(), x if bias is None else bias, y, x if order is None else order,
            length, channels // V, nc, runs, steps, _order_stride(order, K, length), *_strides(V, x, y),
            x.stride(2), y.stride(2),
            K=K, WIDTH=width, WP=power_of_two(width), T=_tile(width), BC=32 * V, V=V, SILU=silu,
            HAS_BIAS=bias is not None, ORDER=order is not None, num_warps=1, num_stages=1, **capped(None),
        )  # fmt: skip
        return
    BT, BC = _block(x)
    nc, nt = cdiv(channels, BC), cdiv(length, BT)
    launch(
        kernels.conv_forward, nc * nt * batch * K,
        x, weight, x if bias is None else bias, x if initial is None else initial, x if seq is None else seq, y,
        x if order is None else order, length, channels, nc, nt, _order_stride(order, K, length),
        *x.stride(), *y.stride(), *weight.stride(), *((0, 0, 0) if initial is None else initial.stride()),
        *((0, 0) if seq is None else seq.stride()),
        K=K, WIDTH=weight.shape[1], BT=BT, BC=BC, SILU=silu, HAS_BIAS=bias is not None,
        HAS_INITIAL=initial is not None, HAS_SEQ=seq is not None, ORDER=order is not None, num_warps=4,
    )  # fmt: skip


def launch_backward(grad, x, weight, bias, initial, seq, dx, dinitial, silu: bool, order=None):
    """Fill dx (b, k, step, c) and dinitial; return the gradients of weight and bias."""
    batch, K, length, channels = grad.shape
    width = weight.shape[1]
    if V := _vector(width, initial, seq, grad, x, dx):
        nc, runs, steps = _runs(batch * K, length, channels, V, width)
        partial = torch.empty(batch, K, runs, width + 1, channels, device=x.device, dtype=torch.float32)
        launch(
            rows.rows_backward, nc * runs * batch * K,
            grad, x, weight.contiguous(), x if bias is None else bias, dx, partial, x if order is None else order,
            length, channels // V, nc, runs, steps, _order_stride(order, K, length), *_strides(V, grad, x, dx),
            grad.stride(2), x.stride(2), dx.stride(2),
            K=K, WIDTH=width, WP=power_of_two(width), T=_tile(width), BC=32 * V, V=V, SILU=silu,
            HAS_BIAS=bias is not None, ORDER=order is not None, num_warps=1, num_stages=1, **capped(None),
        )  # fmt: skip
        return _weight_gradients(partial, weight, bias)
    BT, BC = _block(dx)
    first = 0 if initial is None else 1 - width
    nc, nt = cdiv(channels, BC), cdiv(length, BT)
    partial = torch.empty(batch, K, nt, width + 1, channels, device=x.device, dtype=torch.float32)
    c_bar = torch.empty_like(dx, dtype=torch.float32) if silu else grad
    state_strides = (0, 0, 0) if initial is None else dinitial.stride()
    seq_strides = (0, 0) if seq is None else seq.stride()
    launch(
        kernels.conv_backward_weights, nc * nt * batch * K,
        grad, x, weight, x if bias is None else bias, x if initial is None else initial, x if seq is None else seq,
        c_bar, partial, x if order is None else order, length, channels, nc, nt, _order_stride(order, K, length),
        *grad.stride(), *x.stride(), *c_bar.stride(), *weight.stride(), *state_strides, *seq_strides,
        K=K, WIDTH=width, BT=BT, BC=BC, SILU=silu, HAS_BIAS=bias is not None,
        HAS_INITIAL=initial is not None, HAS_SEQ=seq is not None, ORDER=order is not None, num_warps=4,
    )  # fmt: skip
    nt = cdiv(length - first, BT)
    launch(
        kernels.conv_backward_input, nc * nt * batch * K,
        c_bar, weight, x if seq is None else seq, dx, x if dinitial is None else dinitial, first, length, channels,
        nc, nt, *c_bar.stride(), *dx.stride(), *weight.stride(), *state_strides, *seq_strides,
        K=K, WIDTH=width, BT=BT, BC=BC, HAS_INITIAL=initial is not None, HAS_SEQ=seq is not None, num_warps=4,
    )  # fmt: skip
    return _weight_gradients(partial, weight, bias)


def _weight_gradients(partial: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None):
    """Gradients of weight and bias from sums (batch, K, runs, width + 1, channels)."""
    width = weight.shape[1]
    sums = partial.sum((0, 2))  # (K, width + 1, channels)
    dweight = sums[:, :width].transpose(1, 2).reshape(weight.shape).clone()  # outputs may not share memory
    return dweight, None if bias is None else sums[:, width].reshape(bias.shape).clone()


def _tile(width: int) -> int:
    return 4 if width <= 5 else 8


def _vector(width: int, initial, seq, *tensors: torch.Tensor) -> int:
    """Channels a thread of the kernels for whole rows; 0 where these do not serve."""
    if width > 9 or initial is not None or seq is not None:
        return 0
    if any(t.stride(3) != 1 and t.shape[3] > 1 for t in tensors):
        return 0
    channels = tensors[0].shape[3]
    # a thread's work for V channels grows a little slower than V; lanes behind the last channel are idle
    for V in sorted((4, 2, 1), key=lambda V: cdiv(channels, 32 * V) * (V + 1.5)):
        numbers = [channels, *(t.stride(i) for t in tensors for i in range(3) if t.shape[i] > 1)]
        if V == 1 or (not any(n % V for n in numbers) and not any(t.data_ptr() % 16 for t in tensors)):
            return V
    return 1


def _runs(rows: int, length: int, channels: int, V: int, width: int) -> tuple[int, int, int]:
    """Tiles of channels, runs, and steps a run, so that the GPU is full."""
    nc, T = cdiv(channels, 32 * V), _tile(width)
    runs = max(1, min(cdiv(length, 32), round(2112 / (rows * nc))))
    steps = cdiv(cdiv(length, runs), T) * T
    return nc, cdiv(length, steps), steps


def _strides(V: int, *tensors: torch.Tensor) -> list[int]:
    """Strides of b and k, divided by V."""
    return [0 if t.shape[i] == 1 else t.stride(i) // V for t in tensors for i in range(2)]


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(batch, channels, length) seen as (batch, 1, length, channels)."""
    return x.unsqueeze(1).transpose(2, 3)


def _dense(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.contiguous()


def _block(x: torch.Tensor) -> tuple[int, int]:
    """Steps and channels a program, long along the axis that lies together in memory."""
    return (64, 64) if x.stride(3) == 1 else (512, 8)


def _order_stride(order, K: int, length: int) -> int:
    return 0 if order is None or order.shape[0] == 1 else K * length


def _final_states(x: torch.Tensor, initial: torch.Tensor | None, width: int) -> torch.Tensor:
    batch, channels, length = x.shape
    if length >= width - 1:
        return x[:, :, length - (width - 1) :].contiguous().clone()
    before = x.new_zeros(batch, channels, width - 1) if initial is None else initial
    return torch.cat([before, x], 2)[:, :, length:].contiguous()
