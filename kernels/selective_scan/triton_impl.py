"""The selective scan on a GPU, in Triton; the contract is in kernels/README.md.

u, delta and z may lie channels-first or channels-last; the kernels are made for channels-last (stride 1 between
channels) and follow any other strides without a copy. float64 inputs go to the portable backend: these kernels keep
their states in float32.
"""

import torch

from mamba_vision.kernels.selective_scan import portable
from mamba_vision.kernels.selective_scan.triton_launch import Operands, scan_backward, scan_forward
from mamba_vision.kernels.selective_scan.triton_launch import saved_shape as shape_of_states


def saved_shape(u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> tuple[int, ...]:
    """Shape of what forward keeps: states (batch x groups, length / 8, states, channels / groups)."""
    if u.dtype == torch.float64:
        return portable.saved_shape(u, A, B, C)
    K = _groups(B, C)
    return shape_of_states(u.shape[0], K, u.shape[2], u.shape[1] // K, A.shape[1])


def forward(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep):
    """Outputs, last state, and the states at every eighth step if `keep`."""
    if u.dtype == torch.float64:
        return portable.forward(
            u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep
        )  # fmt: skip
    out = torch.empty_like(u, dtype=out_dtype)
    last = A.new_empty(u.shape[0], *A.shape)
    if u.shape[0] == 0 or u.shape[1] == 0:
        return out, last, A.new_empty(saved_shape(u, A, B, C) if keep else (0,))
    op, K = _operands(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus)
    with torch.cuda.device_of(u):
        saved = scan_forward(op, _rows(out, K), last, keep)
    return out, last, saved


def backward(grad_out, grad_last, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus):
    """Gradients of u, delta, A, B, C, D, z, delta_bias and initial_state."""
    if u.dtype == torch.float64:
        return portable.backward(
            grad_out, grad_last, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus
        )  # fmt: skip
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    if u.shape[0] == 0 or u.shape[1] == 0:
        return tuple(None if t is None else torch.zeros_like(t) for t in inputs)
    op, K = _operands(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus)
    du, ddelta, dB, dC = (torch.empty_like(t) for t in (u, delta, B, C))
    dz = None if z is None else torch.empty_like(z)
    if grad_last is not None:
        grad_last = grad_last.contiguous()
    with torch.cuda.device_of(u):
        dA, dD, dbias, dinitial = scan_backward(
            op, _rows(grad_out, K), grad_last, saved, _rows(du, K), _rows(ddelta, K),
            None if z is None else _rows(dz, K), _by_step(dB), _by_step(dC),
        )  # fmt: skip
    return du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial


def _groups(B: torch.Tensor, C: torch.Tensor) -> int:
    return B.shape[1] if B.dim() == 4 else C.shape[1] if C.dim() == 4 else 1


def _operands(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus) -> tuple[Operands, int]:
    K = _groups(B, C)
    D, delta_bias, initial_state = (None if t is None else t.contiguous() for t in (D, delta_bias, initial_state))
    op = Operands(
        _rows(u, K), _rows(delta, K), A, _by_step(B), _by_step(C), D, None if z is None else _rows(z, K), delta_bias,
        initial_state, delta_softplus, u.shape[2],
    )  # fmt: skip
    return op, K


def _rows(x: torch.Tensor, K: int) -> torch.Tensor:
    """(batch, channels, length) seen as (batch, K, length, channels / K)."""
    return x.unflatten(1, (K, -1)).transpose(2, 3)


def _by_step(x: torch.Tensor) -> torch.Tensor:
    """B or C (batch, groups, state, length) seen as (batch, groups, length, state); constant ones as they are."""
    return x.transpose(2, 3) if x.dim() == 4 else x
