"""The causal convolution a few steps at a time, for decoding token by token."""

import torch
import torch.nn.functional as F

from mamba_vision.kernels.causal_conv1d.op import ACTIVATIONS
from mamba_vision.kernels.checks import check_float, check_shape, compute_dtype


def causal_conv1d_update(
    x: torch.Tensor,
    conv_state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: torch.Tensor | None = None,
) -> torch.Tensor:
    """Append x to the last inputs, convolve the new steps, and keep the last inputs, in place.

    Args:
        x: (batch, channels) for one step, or (batch, channels, steps).
        conv_state: (batch, channels, size), size >= width - 1: the last inputs, newest last. Changed in place.
        weight: (channels, width).
        bias: (channels,).
        activation: None, "silu" or "swish".
        cache_seqlens: (batch,) int32, how many inputs each row has seen. With it conv_state is a ring buffer, in which
            the input of time t lies at t % size; the counts are not changed.

    Returns:
        The outputs of the new steps, like x.

    Raises:
        ValueError: for shapes or options that do not go together.
    """
    if x.dim() not in (2, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, channels) or (batch, channels, steps)")
    steps = x.unsqueeze(-1) if x.dim() == 2 else x
    batch, channels, count = steps.shape
    if weight.dim() != 2 or weight.shape[0] != channels:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected ({channels}, width) for x {tuple(x.shape)}")
    width = weight.shape[1]
    if conv_state.dim() != 3 or conv_state.shape[:2] != steps.shape[:2] or conv_state.shape[2] < width - 1:
        raise ValueError(
            f"conv_state has shape {tuple(conv_state.shape)}, expected ({batch}, {channels}, at least {width - 1}) "
            f"for x {tuple(x.shape)} and weight {tuple(weight.shape)}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}, expected one of {', '.join(map(repr, ACTIVATIONS))}")
    check_float(x=x, conv_state=conv_state, weight=weight, bias=bias)
    if bias is not None:
        check_shape("bias", bias, (channels,), "one value for each channel of x")

    size = conv_state.shape[2]
    if cache_seqlens is None:
        window = torch.cat([conv_state, steps.to(conv_state.dtype)], dim=-1)
        conv_state.copy_(window[..., window.shape[-1] - size :])
    else:
        check_shape("cache_seqlens", cache_seqlens, (batch,), "one count for each row of x")
        seen = cache_seqlens.long()[:, None]
        past = torch.arange(-(width - 1), 0, device=x.device)
        read = ((seen + past) % size)[:, None].expand(-1, channels, -1)
        window = torch.cat([conv_state.gather(2, read), steps.to(conv_state.dtype)], dim=-1)
        # only the last `size` of the new steps fit in
        new = torch.arange(max(0, count - size), count, device=x.device)
        write = ((seen + new) % size)[:, None].expand(-1, channels, -1)
        conv_state.scatter_(2, write, steps[..., new].to(conv_state.dtype))
    work = compute_dtype(x)
    window = window[..., window.shape[-1] - (count + width - 1) :].to(work)
    out = F.conv1d(window, weight.to(work).unsqueeze(1), None if bias is None else bias.to(work), groups=channels)
    out = (out if activation is None else F.silu(out)).to(x.dtype)
    return out.squeeze(-1) if x.dim() == 2 else out
