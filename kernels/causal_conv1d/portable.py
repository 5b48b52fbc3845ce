"""The causal depthwise convolution in plain PyTorch: a sum of shifted products, in whatever layout the input has.

A width of 4 makes four passes over the data, each at the speed of memory, without the im2col of a general convolution
and without a transposition for channels-last input.
"""

import torch
import torch.nn.functional as F


def forward(x, weight, bias, initial_states, seq_idx, silu):
    """Output and last inputs; arguments as in kernels/README.md."""
    out = torch.empty_like(x)
    pre = _preactivation(x, weight, bias, initial_states, seq_idx)
    out.copy_(F.silu(pre, inplace=True) if silu else pre)
    return out, _last_inputs(x, initial_states, weight.shape[1] - 1)


def backward(grad_out, grad_final_states, x, weight, bias, initial_states, seq_idx, silu):
    """Gradients of x, weight, bias and initial_states; arguments as in kernels/README.md."""
    width, length = weight.shape[1], x.shape[2]
    grad = grad_out.to(weight.dtype)
    if silu:
        pre = _preactivation(x, weight, bias, initial_states, seq_idx)
        sigma = torch.sigmoid(pre)
        grad = grad * sigma * (1 + pre * (1 - sigma))
    dx = torch.zeros_like(x, dtype=weight.dtype)
    dweight = torch.empty_like(weight)
    dstates = None if initial_states is None else torch.zeros_like(initial_states, dtype=weight.dtype)
    wide = x.to(weight.dtype)
    for k, lag in _taps(width):
        taken = grad[..., lag:] if lag < length else grad[..., :0]
        if seq_idx is not None and 0 < lag < length:
            taken = taken * _same_sequence(seq_idx, lag)
        dweight[:, k] = (taken * wide[..., : length - lag]).sum((0, 2)) if lag < length else 0
        if lag < length:
            dx[..., : length - lag].addcmul_(taken, weight[:, k, None])
        if initial_states is not None and lag:
            # steps t < lag read initial_states[t - lag + width - 1]
            first, count = width - 1 - lag, min(lag, length)
            early = grad[..., :count]
            dstates[..., first : first + count].addcmul_(early, weight[:, k, None])
            dweight[:, k] += (early * initial_states[..., first : first + count]).sum((0, 2))
    if grad_final_states is not None:
        kept = min(width - 1, length)
        dx[..., length - kept :] += grad_final_states[..., width - 1 - kept :]
        if dstates is not None and kept < width - 1:
            dstates[..., length:] += grad_final_states[..., : width - 1 - kept]
    dbias = None if bias is None else grad.sum((0, 2))
    dx = torch.empty_like(x).copy_(dx) if dx.dtype != x.dtype else dx
    if dstates is not None:
        dstates = torch.empty_like(initial_states).copy_(dstates)
    return dx, dweight, dbias, dstates


def _taps(width: int) -> list[tuple[int, int]]:
    """(column of the weight, how many steps back it looks)."""
    return [(k, width - 1 - k) for k in reversed(range(width))]


def _preactivation(x, weight, bias, initial_states, seq_idx):
    length, width = x.shape[2], weight.shape[1]
    wide = x.to(weight.dtype)
    pre = wide * weight[:, -1:]
    for k, lag in _taps(width)[1:]:
        if lag < length:
            source = wide[..., : length - lag]
            if seq_idx is not None:
                source = source * _same_sequence(seq_idx, lag)
            pre[..., lag:].addcmul_(source, weight[:, k, None])
        if initial_states is not None:
            first, count = width - 1 - lag, min(lag, length)
            states = initial_states[..., first : first + count].to(weight.dtype)
            pre[..., :count].addcmul_(states, weight[:, k, None])
    return pre if bias is None else pre.add_(bias[:, None])


def _same_sequence(seq_idx: torch.Tensor, lag: int) -> torch.Tensor:
    """(batch, 1, length - lag): whether step t + lag belongs to the sequence of step t."""
    return (seq_idx[:, lag:] == seq_idx[:, : seq_idx.shape[1] - lag]).unsqueeze(1)


def _last_inputs(x: torch.Tensor, initial_states: torch.Tensor | None, count: int) -> torch.Tensor:
    length = x.shape[2]
    states = x.new_zeros(*x.shape[:2], count)
    kept = min(count, length)
    if initial_states is not None and kept < count:
        states[..., : count - kept] = initial_states[..., length:]
    states[..., count - kept :] = x[..., length - kept :]
    return states
