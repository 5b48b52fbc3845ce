"""The selective scan in C++ (kernels/native), for tensors on a CPU; the contract is in kernels/README.md.

Where caches are cold, as behind any large operator, a call into PyTorch takes ten times as long as in a loop. There are
few here: the C++ reads and writes tensors as they lie.
"""

import torch

from mamba_vision.kernels.native.library import TILE, parts_and_threads, run


def saved_shape(u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> tuple[int, ...]:
    """The states before every tile of steps: (tiles, batch, state, channels)."""
    return (-(-u.shape[2] // TILE), u.shape[0], A.shape[1], A.shape[0])


def forward(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep):
    """Outputs, last state, and the states before the tiles if `keep`; arguments as in kernels/README.md."""
    sizes, threads, given = _given(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus)
    out = torch.empty_like(u, dtype=out_dtype)
    written = out if out_dtype == A.dtype else torch.empty_like(u, dtype=A.dtype)
    last = A.new_empty((u.shape[0], *A.shape))
    saved = A.new_empty(saved_shape(u, A, B, C) if keep else 0)
    given["out"], given["last"], given["saved"] = written, last, saved if keep else None
    run(False, threads, sizes, given)
    if written is not out:
        out.copy_(written)
    return out, last, saved


def backward(grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus):
    """Gradients of all inputs; arguments as in kernels/README.md."""
    if saved.numel() == 0:
        saved = forward(u, delta, A, B, C, None, None, delta_bias, initial_state, delta_softplus, A.dtype, True)[2]
    sizes, threads, given = _given(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus)
    given["saved"], given["grad_out"] = saved, _cast(grad_out, A.dtype)
    given["grad_last"] = _contiguous(grad_last_state)

    made = {name: torch.empty_like(t, dtype=A.dtype) for name, t in (("du", u), ("ddelta", delta))}
    made["dz"] = None if z is None else torch.empty_like(z, dtype=A.dtype)
    rows, vector = (u.shape[0], *A.shape), (u.shape[0], len(A))  # a row for each element of the batch
    made["dA"] = A.new_empty(rows)
    made["dinitial"] = None if initial_state is None else A.new_empty(rows)
    made["dD"], made["dbias"] = (None if p is None else A.new_empty(vector) for p in (D, delta_bias))
    parts = sizes[5]
    for name, matrix in (("B", B), ("C", C)):
        if matrix.dim() == 2:
            made[f"dconstant_{name}"] = A.new_empty(rows)
        elif parts == 1:
            made[f"d{name}"] = torch.empty_like(matrix, dtype=A.dtype)
        else:
            made[f"d{name}"] = A.new_empty((parts, *matrix.shape))
    run(True, threads, sizes, given | made)

    def matrix_gradient(name, matrix):
        if matrix.dim() == 2:
            return _cast(_total(made[f"dconstant_{name}"]), matrix.dtype)
        found = made[f"d{name}"]
        return _cast(found, matrix.dtype) if parts == 1 else torch.empty_like(matrix).copy_(found.sum(0))

    return (
        _cast(made["du"], u.dtype),
        _cast(made["ddelta"], delta.dtype),
        _total(made["dA"]),
        matrix_gradient("B", B),
        matrix_gradient("C", C),
        _total(made["dD"]),
        None if z is None else _cast(made["dz"], z.dtype),
        _total(made["dbias"]),
        made["dinitial"],
    )


def _given(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus):
    """Sizes, threads and tensors of a scan as the library takes them: of the compute dtype, parameters contiguous."""
    dtype, state = A.dtype, A.shape[1]
    groups = B.shape[1] if B.dim() == 4 else C.shape[1] if C.dim() == 4 else 1
    parts, threads = parts_and_threads(u.shape, state, groups, dtype)
    tensors = {"u": _cast(u, dtype), "delta": _cast(delta, dtype), "z": _cast(z, dtype)}
    for name, matrix in (("B", B), ("C", C)):
        if matrix.dim() == 4:
            tensors[name] = _cast(matrix, dtype)
        else:
            tensors[f"constant_{name}"] = _cast(matrix, dtype).contiguous()
    for name, parameter in (("A", A), ("D", D), ("delta_bias", delta_bias), ("initial", initial_state)):
        tensors[name] = _contiguous(parameter)
    return (*u.shape, state, groups, parts, dtype == torch.float64, delta_softplus), threads, tensors


def _cast(t: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return t if t is None or t.dtype == dtype else t.to(dtype)


def _contiguous(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else t.contiguous()


def _total(rows: torch.Tensor | None) -> torch.Tensor | None:
    """The sum over the batch."""
    return rows if rows is None else rows[0] if len(rows) == 1 else rows.sum(0)
