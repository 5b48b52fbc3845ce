"""The selective scan in C++ (kernels/native), for tensors on a CPU; the contract is in kernels/README.md."""

import torch

from mamba_vision.kernels.native.library import TILE, new_scan, run


def saved_shape(u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> tuple[int, ...]:
    """The states before every tile of steps: (tiles, batch, state, channels)."""
    return (-(-u.shape[2] // TILE), u.shape[0], A.shape[1], A.shape[0])


def forward(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep):
    """Outputs, last state, and the states before the tiles if `keep`; arguments as in kernels/README.md."""
    out = torch.empty_like(u, dtype=out_dtype)
    last = A.new_empty(u.shape[0], A.shape[1], A.shape[0])
    saved = A.new_empty(saved_shape(u, A, B, C) if keep else 0)
    given = _Inputs(u, delta, A, B, C, D, z, delta_bias, initial_state)
    scan, threads = new_scan(u.shape, A.shape[1], given.groups, A.dtype, delta_softplus)
    written = out if out_dtype == A.dtype else torch.empty_like(u, dtype=A.dtype)
    scan.fill(**given.tensors, out=written, last=last, saved=saved if keep else None)
    run(scan, False, threads)
    if written is not out:
        out.copy_(written)
    return out, last.transpose(1, 2).contiguous(), saved


def backward(grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus):
    """Gradients of all inputs; arguments as in kernels/README.md."""
    if saved.numel() == 0:
        saved = forward(u, delta, A, B, C, None, None, delta_bias, initial_state, delta_softplus, A.dtype, True)[2]
    batch, (channels, state) = u.shape[0], A.shape
    given = _Inputs(u, delta, A, B, C, D, z, delta_bias, initial_state)
    scan, threads = new_scan(u.shape, state, given.groups, A.dtype, delta_softplus)
    grad_last = None if grad_last_state is None else grad_last_state.transpose(1, 2).contiguous()

    rows, vector = (batch, state, channels), (batch, channels)
    made = {name: torch.empty_like(t, dtype=A.dtype) for name, t in (("du", u), ("ddelta", delta))}
    if z is not None:
        made["dz"] = torch.empty_like(z, dtype=A.dtype)
    for name, matrix in (("dB", B), ("dC", C)):
        by_step = (scan.parts, batch, given.groups, u.shape[2], state)
        made[name] = A.new_empty(rows if matrix.dim() == 2 else by_step)
    made |= {"dA": A.new_empty(rows), "dinitial": A.new_empty(rows)}
    made |= {f"d{name}": A.new_empty(vector) for name, p in (("D", D), ("bias", delta_bias)) if p is not None}
    scan.fill(**given.tensors, **made, saved=saved, grad_out=grad_out.to(A.dtype), grad_last=grad_last)
    run(scan, True, threads)

    def matrix_gradient(name, matrix):
        if matrix.dim() == 2:
            return made[name].sum(0).t().to(matrix.dtype).contiguous()
        parts = made[name]
        total = parts[0] if len(parts) == 1 else parts.sum(0)
        return torch.empty_like(matrix).copy_(total.transpose(2, 3))

    return (
        made["du"].to(u.dtype),
        made["ddelta"].to(delta.dtype),
        made["dA"].sum(0).t().contiguous(),
        matrix_gradient("dB", B),
        matrix_gradient("dC", C),
        None if D is None else made["dD"].sum(0),
        None if z is None else made["dz"].to(z.dtype),
        None if delta_bias is None else made["dbias"].sum(0),
        None if initial_state is None else made["dinitial"].transpose(1, 2).contiguous(),
    )


class _Inputs:
    """The inputs as the library takes them: of the compute dtype, parameters contiguous."""

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, initial_state):
        self.groups = next((M.shape[1] for M in (B, C) if M.dim() == 4), 1)
        self.tensors = {name: t if t is None else t.to(A.dtype) for name, t in (("u", u), ("delta", delta), ("z", z))}
        for name, matrix in (("B", B), ("C", C)):
            matrix = matrix.to(A.dtype)
            if matrix.dim() == 2:
                self.tensors[f"constant_{name}"] = matrix.contiguous()
            else:
                self.tensors[name] = _in_rows(matrix)
        self.tensors |= {"A": A.contiguous(), "D": _contiguous(D), "delta_bias": _contiguous(delta_bias)}
        self.tensors["initial"] = None if initial_state is None else initial_state.transpose(1, 2).contiguous()


def _contiguous(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else t.contiguous()


def _in_rows(matrix: torch.Tensor) -> torch.Tensor:
    """B or C (batch, groups, state, length) as (batch, groups x state, length): a view, if its strides allow."""
    return matrix.flatten(1, 2)
