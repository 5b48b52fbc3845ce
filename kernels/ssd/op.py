"""ssd: argument checks, choice of the form. Two forms are plain tensor operations, which autograd differentiates."""

import torch
import torch.nn.functional as F

from mamba_vision.kernels.backends import choose
from mamba_vision.kernels.checks import check_device, check_float, check_shape, compute_dtype
from mamba_vision.kernels.operators import without_autocast
from mamba_vision.kernels.ssd.exported import ssd_as_selective_scan
from mamba_vision.kernels.ssd.portable import ssd_chunked
from mamba_vision.kernels.ssd.reference import ssd_reference
from mamba_vision.kernels.ssd.scan_op import ssd_scan


def ssd(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
    seq_idx: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    chunk_size: int = 64,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """The state-space duality op of Mamba-2 (arXiv 2405.21060): a scan whose decay is one number per head.

    s = clamp(softplus(dt + dt_bias), *dt_limit); S_t = exp(s_t A) S_{t-1} + s_t x_t B_t^T; y_t = S_t C_t + D x_t;
    out = y silu(z). Arithmetic is float32 (float64 for a float64 x).

    Args:
        x: (batch, length, heads, P), length >= 1.
        dt: (batch, length, heads).
        A: (heads,), negative.
        B, C: (batch, length, groups, N); head h belongs to group h // (heads / groups).
        D: (heads,) or (heads, P).
        z: (batch, length, heads, P).
        dt_bias: (heads,).
        initial_states: (batch, heads, P, N); zero by default.
        seq_idx: (batch, length) integers, which of several packed sequences a step belongs to: the state is set to
            zero where it changes, and at the start if it is not 0 there.
        dt_softplus: pass dt + dt_bias through softplus.
        dt_limit: bounds of the step size; no gradient flows outside them.
        return_final_states: also return the state after the last step; it is differentiable.
        chunk_size: steps computed as one matrix; speed and memory only.

    Returns:
        The output, like x; with return_final_states also the states (batch, heads, P, N), float32 (float64).

    Raises:
        ValueError: for shapes, dtypes or devices that do not go together.
        BackendError: if a backend was asked for that cannot run.
    """
    _check(x, dt, A, B, C, D, z, dt_bias, initial_states, seq_idx, chunk_size)
    work = compute_dtype(x)
    backend = choose("ssd", x)
    with without_autocast(x):
        step = dt.to(work)
        if dt_bias is not None:
            step = step + dt_bias.to(work)
        if dt_softplus:
            step = F.softplus(step, threshold=20.0)
        step = step.clamp(*dt_limit)
        wide = x.to(work)
        state = None if initial_states is None else initial_states.to(work)
        segment = None if seq_idx is None else _segments(seq_idx)
        if backend == "triton" and _kernels_serve(x, B):
            segment = None if segment is None else segment.to(torch.int32)
            state = None if state is None else state.contiguous()
            y, state = ssd_scan(x, step, A.to(work), B, C, state, segment, chunk_size)
        elif torch.compiler.is_exporting() and state is None and segment is None and not return_final_states:
            y = ssd_as_selective_scan(wide, step, A.to(work), B.to(work), C.to(work))
        else:
            if state is None:
                state = wide.new_zeros(x.shape[0], *x.shape[2:], B.shape[3])
            inputs = (wide, step, A.to(work), B.to(work), C.to(work), state, segment)
            y, state = ssd_reference(*inputs) if backend == "reference" else ssd_chunked(*inputs, chunk_size)
        if D is not None:
            y = y + (D if D.dim() == 2 else D.unsqueeze(-1)).to(work) * wide
        if z is not None:
            y = y * F.silu(z.to(work))
    y = y.to(x.dtype)
    return (y, state) if return_final_states else y


def _kernels_serve(x: torch.Tensor, B: torch.Tensor) -> bool:
    from mamba_vision.kernels.ssd.triton_impl import serves

    return serves(x, B)


def _segments(seq_idx: torch.Tensor) -> torch.Tensor:
    """(batch, length): how often the index has changed up to each step, beginning from index 0."""
    before = F.pad(seq_idx[:, :-1], (1, 0))
    return (seq_idx != before).long().cumsum(1)


def _check(x, dt, A, B, C, D, z, dt_bias, initial_states, seq_idx, chunk_size) -> None:
    if x.dim() != 4 or x.shape[1] < 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, length, heads, P), a length of at least 1")
    batch, length, heads, P = x.shape
    check_float(x=x, dt=dt, A=A, B=B, C=C, D=D, z=z, dt_bias=dt_bias, initial_states=initial_states)
    check_shape("dt", dt, (batch, length, heads), "the first three axes of x")
    check_shape("A", A, (heads,), "one value for each head of x")
    if B.dim() != 4 or B.shape[:2] != x.shape[:2] or B.shape[2] < 1 or heads % B.shape[2]:
        raise ValueError(
            f"B has shape {tuple(B.shape)}, expected ({batch}, {length}, groups, N) with groups dividing the {heads} "
            f"heads of x {tuple(x.shape)}"
        )
    check_shape("C", C, B.shape, "the shape of B")
    if D is not None and tuple(D.shape) not in ((heads,), (heads, P)):
        raise ValueError(f"D has shape {tuple(D.shape)}, expected ({heads},) or ({heads}, {P})")
    if z is not None:
        check_shape("z", z, x.shape, "the shape of x")
    if dt_bias is not None:
        check_shape("dt_bias", dt_bias, (heads,), "one value for each head of x")
    if initial_states is not None:
        check_shape("initial_states", initial_states, (batch, heads, P, B.shape[3]), "(batch, heads, P, N) of x and B")
    if seq_idx is not None:
        check_shape("seq_idx", seq_idx, (batch, length), "(batch, length) of x")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected at least 1")
    check_device("x", x=x, dt=dt, A=A, B=B, C=C, D=D, z=z, dt_bias=dt_bias, seq_idx=seq_idx)
