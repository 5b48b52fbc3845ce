"""Single steps of decoding with their published names and arguments: states of which each row of a batch picks one."""

from torch import Tensor

from mamba_vision.kernels.causal_conv1d import causal_conv1d_update as update_convolution
from mamba_vision.kernels.selective_scan import selective_state_update as update_state


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """`kernels.causal_conv1d_update`; row b continues conv_state[conv_state_indices[b]], no two rows the same."""
    given = (weight, bias, activation, cache_seqlens)
    if conv_state_indices is None:
        return update_convolution(x, conv_state, *given)
    picked = conv_state[conv_state_indices.long()]
    out = update_convolution(x, picked, *given)
    conv_state[conv_state_indices.long()] = picked
    return out


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """`kernels.selective_state_update`; row b continues state[state_batch_indices[b]], no two rows the same."""
    given = (x, dt, A, B, C, D, z, dt_bias, dt_softplus)
    if state_batch_indices is None:
        return update_state(state, *given)
    picked = state[state_batch_indices.long()]
    out = update_state(picked, *given)
    state[state_batch_indices.long()] = picked
    return out
