"""From views (b, k, row, c) to kernel launches; selective_scan and ordered_scan both end here.

b batch, k group of channels (selective_scan) or scan order (ordered_scan), row a step or a token, c channel of the k.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch

from mamba_vision.kernels.selective_scan import triton_backward as bw
from mamba_vision.kernels.selective_scan import triton_forward as fw
from mamba_vision.kernels.selective_scan import triton_one_state as one_state
from mamba_vision.kernels.selective_scan import triton_tuning as tuning
from mamba_vision.kernels.triton_common import capped, cdiv, power_of_two
from mamba_vision.kernels.triton_launcher import launch
from mamba_vision.kernels.triton_notice import announce_compilation

TILE = 8  # steps between the states kept for backward


@dataclass
class Operands:
    """Inputs of a scan over `length` steps of K groups, all as views; see triton_forward for what each means.

    u, delta, z (b, k, row, c); A (k c, n); B, C (b, k, row, n), or (k c, n) constant; D, bias (k c).
    order (b or 1, k, length) int32: u, z and the gradient of y have rows by token; delta,
    B and C too with `token_rows`; u after all
    by step with `u_by_step`.
    """

    u: torch.Tensor
    delta: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor | None
    z: torch.Tensor | None
    bias: torch.Tensor | None
    initial: torch.Tensor | None
    softplus: bool
    length: int
    order: torch.Tensor | None = None
    token_rows: bool = False
    u_by_step: bool = False
    permutation: bool = False  # every order visits every token exactly once

    def __post_init__(self):
        self.batch, self.K, _, self.channels = self.u.shape
        self.N = self.A.shape[1]
        self.NP = power_of_two(self.N)
        self.const_B, self.const_C = self.B.dim() == 2, self.C.dim() == 2
        self.tiles = cdiv(self.length, TILE)
        self.padded = 64 if self.length <= 64 else cdiv(self.length, 128) * 128  # steps that a tile may touch
        self.precise = any(t is not None and t.dtype == torch.float32 for t in (self.u, self.delta, self.z))

    def empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, device=self.u.device, dtype=torch.float32)

    def flags(self) -> dict:
        return dict(
            K=self.K, EACH=self.permutation, HAS_Z=self.z is not None, HAS_BIAS=self.bias is not None,
            SOFTPLUS=self.softplus,
            PRECISE=self.precise, CONST_C=self.const_C, ORDER=self.order is not None,
            U_TOKENS=self.order is not None and not self.u_by_step, D_TOKENS=self.order is not None and self.token_rows,
        )  # fmt: skip

    def order_stride(self) -> int:
        return 0 if self.order is None or self.order.shape[0] == 1 else self.K * self.length


def saved_shape(batch: int, K: int, length: int, channels: int, states: int) -> tuple[int, ...]:
    """The states at every eighth step."""
    return (batch * K, (length + TILE - 1) // TILE, power_of_two(states), channels)


def scan_forward(
    op: Operands, y: torch.Tensor, last: torch.Tensor | None, keep: bool, y_tokens: bool = False, saved=None
) -> torch.Tensor:
    """Fill y (b, k, row, c) and last (b, k c, n); return the states for backward (empty unless `keep`).

    y_tokens: rows of y are tokens (the order visits none twice), else steps. saved: where to put the states.
    """
    announce_compilation()
    if saved is None:
        saved = op.empty(*saved_shape(op.batch, op.K, op.length, op.channels, op.N)) if keep else op.empty(0)
    flags = op.flags() | dict(
        HAS_D=op.D is not None, HAS_INITIAL=op.initial is not None, CONST_B=op.const_B, Y_TOKENS=y_tokens
    )
    u, z = op.u, op.u if op.z is None else op.z
    D, bias, initial, order = (u if t is None else t for t in (op.D, op.bias, op.initial, op.order))
    last_p = u if last is None else last
    bk = op.batch * op.K
    if op.N == 1:
        choice = tuning.one_state(bk, op.channels, op.length, "forward", keep)
        W = min(choice.W, op.padded // choice.T)
        V, unit, strides, steps = _geometry(choice.V, u, op.delta, z, y)
        rows_of_B, rows_of_C, padded = _as_columns(op)
        BC = choice.BC if V == choice.V else 32
        nc = cdiv(op.channels, BC)
        launch(
            one_state.scan_one_state, nc * bk,
            u, op.delta, rows_of_B, rows_of_C, op.A, op.B, op.C, D, bias, z, y, initial, last_p, saved, order,
            op.length, op.channels // V, 1, nc, op.tiles, op.order_stride(), op.A.stride(0),
            op.B.stride(0), op.C.stride(0), *rows_of_B.stride()[:2], *rows_of_C.stride()[:2], *strides,
            *steps,
            BC=BC, T=choice.T, W=W, V=V, EVERY=TILE, FULL=op.length % (choice.T * W) == 0,
            PADDED=padded, LQ=_quantum(op, rows_of_B, rows_of_C), WHOLE=op.channels % BC == 0, UNIT=unit, KEEP=keep,
            LAST=last is not None, NEAR=choice.near, **flags, num_warps=max(1, W * BC // (32 * V)), num_stages=1,
            **capped(choice.registers),
        )  # fmt: skip
        return saved
    choice = tuning.forward_states(bk, op.channels, op.length, op.N)
    V, unit, strides, steps = _geometry(choice.V, u, op.delta, z, y)
    BC = choice.BC if V == choice.V else 32
    At, rows = _pack(op, rows=True)
    chunk = choice.chunk or cdiv(op.length, 16) * 16
    n_chunks = cdiv(op.length, chunk)
    nc = cdiv(op.channels, BC)

    def scan(phase: int, entering, ends, decays):
        launch(
            fw.scan_states, nc * n_chunks * bk,
            u, op.delta, rows, At, op.B, op.C, D, bias, z, y, initial, last_p, entering, ends, decays, saved, order,
            op.length, op.padded, op.channels // V, 1, nc, n_chunks, op.tiles, op.order_stride(),
            op.B.stride(0), op.B.stride(1), op.C.stride(0), op.C.stride(1), *strides, *steps,
            N=op.N, NP=op.NP, BC=BC, T=choice.T, V=V, CHUNK=chunk, EVERY=TILE, PHASE=phase,
            FULL=op.length % choice.T == 0,
            WHOLE=op.channels % BC == 0, UNIT=unit, KEEP=keep and phase != 1, LAST=last is not None, NEAR=choice.near,
            **flags,
            num_warps=max(1, op.NP // 64), num_stages=1, **capped(choice.registers),
        )  # fmt: skip

    if n_chunks == 1:
        scan(0, u, u, u)
        return saved
    ends = op.empty(bk, n_chunks, op.NP, op.channels)
    decays = op.empty(bk, n_chunks, op.channels)
    entering = torch.empty_like(ends)
    scan(1, u, ends, decays)
    _carry(op, ends, decays, At, op.initial, entering, n_chunks, False)
    scan(2, entering, u, u)
    return saved


def scan_backward(op: Operands, grad, grad_last, saved, du, ddelta, dz, dB, dC, d_tokens: bool = False):
    """Fill du (b, k, step, c), ddelta, dz, dB and dC; return gradients of A, D, bias, initial state.

    d_tokens: ddelta's, dB's and dC's rows are tokens, else steps.
    """
    if saved.numel() == 0:
        y = torch.empty(op.batch, op.K, op.length, op.channels, device=op.u.device, dtype=op.u.dtype)
        saved = scan_forward(op, y, None, keep=True)
        del y
    u, z = op.u, op.u if op.z is None else op.z
    dz_or = op.u if dz is None else dz
    tensors = (u, op.delta, z, grad, du, ddelta, dz_or)
    bk = op.batch * op.K
    order = u if op.order is None else op.order
    D, bias = (u if t is None else t for t in (op.D, op.bias))
    dA = torch.empty_like(op.A)
    dD, dbias, dinitial = (None if t is None else torch.empty_like(t) for t in (op.D, op.bias, op.initial))
    flags = op.flags()
    # bfloat16 rounds more off the sums over channels than the tensor core does; float16 does not
    exact = op.precise or torch.float16 in (op.u.dtype, op.B.dtype, op.C.dtype)
    grads = flags | dict(HAS_D=op.D is not None, CONST_B=op.const_B, DD_TOKENS=d_tokens, EXACT=exact)
    R = op.N + 2 + op.N * (op.const_B + op.const_C)
    if op.N == 1:
        choice = tuning.one_state(bk, op.channels, op.length, "backward")
        W = min(choice.W, op.padded // TILE)
        V, unit, strides, steps = _geometry(choice.V, *tensors)
        BC = choice.BC if V == choice.V else 32
        nc, n_chunks = cdiv(op.channels, BC), 1
        rows_of_B, rows_of_C, padded = _as_columns(op)
        sums = op.empty(bk, 1, R, op.channels)
        partial = op.empty(nc, bk, 2, op.padded)
        launch(
            one_state.backward_one_state, nc * bk,
            u, op.delta, rows_of_B, rows_of_C, op.A, op.B, op.C, D, bias, z, grad,
            u if grad_last is None else grad_last, saved,
            du, ddelta, dz_or, sums, partial, u if dinitial is None else dinitial, order,
            op.length, op.padded, op.channels // V, 1, nc, op.tiles, bk, op.order_stride(), op.A.stride(0),
            op.B.stride(0), op.C.stride(0), *rows_of_B.stride()[:2], *rows_of_C.stride()[:2],
            *strides, *steps,
            BC=BC, W=W, V=V, FULL=op.length % (TILE * W) == 0, PADDED=padded, LQ=_quantum(op, rows_of_B, rows_of_C),
            WHOLE=op.channels % BC == 0, UNIT=unit, HAS_LAST=grad_last is not None,
            INITIAL=dinitial is not None, FAST=unit and BC == 32 * V, AHEAD=choice.ahead, NEAR=choice.near, **grads,
            num_warps=max(1, W * BC // (32 * V)), num_stages=1, **capped(choice.registers),
        )  # fmt: skip
    else:
        choice = tuning.backward_states(bk, op.channels, op.length, op.N)
        V, unit, strides, steps = _geometry(choice.V, *tensors)
        BC = choice.BC if V == choice.V else 32
        nc = cdiv(op.channels, BC)
        chunk = choice.chunk or cdiv(op.length, 16) * 16
        n_chunks = cdiv(op.length, chunk)
        At, cols = _pack(op, rows=False)
        size = bk * n_chunks * op.channels
        zeroed = torch.zeros(size * (R + (op.NP if n_chunks == 1 else 0)), device=u.device, dtype=torch.float32)
        sums = zeroed[: size * R].view(bk, n_chunks, R, op.channels)
        if n_chunks > 1:
            adjoint = _adjoint_entering(op, choice, At, grad, grad_last, chunk, n_chunks, flags)
        else:
            adjoint = zeroed[size * R :].view(bk, 1, op.NP, op.channels)
            if grad_last is not None:
                adjoint[:, 0, : op.N].copy_(grad_last.reshape(bk, op.channels, op.N).transpose(1, 2))
        partial = op.empty(nc, bk, 2 * op.NP, op.padded)
        launch(
            bw.backward_states, nc * n_chunks * bk,
            u, op.delta, cols, At, op.B, op.C, D, bias, z, grad, saved, adjoint,
            du, ddelta, dz_or, sums, partial, order,
            op.length, op.padded, op.channels // V, 1, nc, n_chunks, op.tiles, bk, op.order_stride(),
            op.B.stride(0), op.B.stride(1), op.C.stride(0), op.C.stride(1),
            *strides, *steps,
            N=op.N, NP=op.NP, BC=BC, V=V, CHUNK=chunk, FULL=op.length % TILE == 0, WHOLE=op.channels % BC == 0,
            UNIT=unit,
            UNROLL=min(choice.unroll, op.N), FAST=unit and BC == 32 * V, RELOAD=choice.reload, NEAR=choice.near,
            **grads,
            num_warps=1, num_stages=1, **capped(choice.registers),
        )  # fmt: skip
        if dinitial is not None:
            left = adjoint.view(bk, n_chunks, op.NP, op.channels)[:, 0, : op.N].transpose(1, 2)
            dinitial.copy_(left.reshape(dinitial.shape))
    _finish(op, partial, sums, dB, dC, dA, dD, dbias, nc, n_chunks, R, d_tokens)
    return dA, dD, dbias, dinitial


def _adjoint_entering(op: Operands, choice, At, grad, grad_last, chunk: int, n_chunks: int, flags: dict):
    z = op.delta if op.z is None else op.z
    V, unit, strides, steps = _geometry(choice.local_v, op.delta, z, grad)
    BC = choice.local_bc if choice.local_v == V else 32
    bk, nc = op.batch * op.K, cdiv(op.channels, BC)
    _, rows = _pack(op, rows=True, only_C=True)
    ends = op.empty(bk, n_chunks, op.NP, op.channels)
    decays = op.empty(bk, n_chunks, op.channels)
    entering = torch.empty_like(ends)
    launch(
        bw.adjoint_of_chunks, nc * n_chunks * bk,
        op.delta, rows, At, op.C, op.u if op.bias is None else op.bias, z, grad, ends, decays,
        op.u if op.order is None else op.order, op.length, op.padded, op.channels // V, 1, nc, n_chunks,
        op.order_stride(),
        op.C.stride(0), op.C.stride(1), *strides, *steps,
        N=op.N, NP=op.NP, BC=BC, T=choice.local_t, V=V, CHUNK=chunk, FULL=op.length % choice.local_t == 0,
        WHOLE=op.channels % BC == 0, UNIT=unit, NEAR=choice.local_near, **flags,
        num_warps=max(1, op.NP // 64), num_stages=1, **capped(choice.local_registers),
    )  # fmt: skip
    _carry(op, ends, decays, At, grad_last, entering, n_chunks, True)
    return entering


def _carry(op: Operands, ends, decays, At, first, entering, n_chunks: int, reverse: bool) -> None:
    nc = cdiv(op.channels, 32)
    launch(
        fw.carry, nc * op.NP * op.batch * op.K,
        ends, decays, At, op.u if first is None else first, entering, op.channels, nc, n_chunks,
        K=op.K, N=op.N, NP=op.NP, BC=32, REVERSED=reverse, HAS_FIRST=first is not None, num_warps=1, num_stages=1,
    )  # fmt: skip


def _pack(op: Operands, rows: bool, only_C: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """A as (k, n, c) times log2(e); B and C as float32 rows (b k, t, 2 NP), or columns (b k, 2 NP, t)."""
    bk = op.batch * op.K
    At = op.empty(op.K, op.NP, op.channels)
    variable = not (op.const_B and op.const_C)
    packed = op.empty(bk, op.padded, 2 * op.NP) if variable else op.empty(0)
    order = op.order if op.token_rows else None
    B = op.u if op.const_B else op.B
    C = op.u if op.const_C else op.C
    n_tiles = op.padded // 64 if variable else 0
    launch(
        fw.pack, n_tiles * bk + op.K * cdiv(op.channels, 128),
        op.A, B, C, At, packed, packed, op.u if order is None else order,
        op.length, op.padded, op.channels, op.order_stride(), *op.A.stride(), *B.stride(), *C.stride(), n_tiles, bk,
        K=op.K, N=op.N, NP=op.NP, BT=64, HAS_B=not op.const_B and not only_C, HAS_C=not op.const_C,
        ORDER=order is not None, ROWS=rows, COLS=not rows, num_warps=4, num_stages=1,
    )  # fmt: skip
    return At, packed


def _as_columns(op: Operands) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """B and C of one state as (b, k, t) with steps together: as they are if they lie so, else packed and padded."""
    direct = op.order is None or not op.token_rows
    for t in (op.B, op.C):
        direct = direct and (t.dim() == 2 or t.stride(2) == 1 or op.length == 1)
    if direct:
        B, C = (op.empty(1, 1, 1) if t.dim() == 2 else t[..., 0] for t in (op.B, op.C))
        return B, C, False
    cols = _pack(op, rows=False)[1]
    if cols.numel() == 0:
        return op.u[..., 0], op.u[..., 0], True
    both = cols.view(op.batch, op.K, 2, op.padded)
    return both[:, :, 0], both[:, :, 1], True


def _quantum(op: Operands, B: torch.Tensor, C: torch.Tensor) -> int:
    """The power of two, up to 16, that the length and all strides of small rows are multiples of."""
    numbers = [op.length, *B.stride()[:2], *C.stride()[:2], op.order_stride()]
    return next(q for q in (16, 8, 4, 2, 1) if not any(n % q for n in numbers))


def _finish(op: Operands, partial, sums, dB, dC, dA, dD, dbias, nc: int, n_chunks: int, R: int, tokens: bool) -> None:
    bk = op.batch * op.K
    BT = max(32, 256 // op.NP)
    n_tiles = 0 if op.const_B and op.const_C else cdiv(op.length, BT)
    ctiles = cdiv(op.channels, 32)
    u = op.u
    none = (0, 0, 0, 0)
    launch(
        bw.finish, n_tiles * bk + op.K * R * ctiles,
        partial, sums, u if op.const_B else dB, u if op.const_C else dC, dA, u if dD is None else dD,
        u if dbias is None else dbias, dB if op.const_B else u, dC if op.const_C else u,
        u if op.order is None else op.order,
        op.length, op.padded, op.channels, bk * n_chunks, nc, partial.stride(0), bk, n_tiles, ctiles, op.order_stride(),
        *(none if op.const_B else dB.stride()), *(none if op.const_C else dC.stride()), *dA.stride(),
        *(dB.stride() if op.const_B else (0, 0)), *(dC.stride() if op.const_C else (0, 0)),
        K=op.K, N=op.N, NP=op.NP, BT=BT, BR=32, BC=32, HAS_D=dD is not None, HAS_BIAS=dbias is not None,
        CONST_B=op.const_B, CONST_C=op.const_C, TOKENS=tokens, num_warps=4, num_stages=1,
    )  # fmt: skip


class Geometry(NamedTuple):
    """How the kernels address large tensors (b, k, row, c)."""

    V: int  # channels a thread that all tensors allow (alignment, strides)
    unit: bool  # channels are adjacent in all
    strides: tuple[int, ...]  # of b and k, divided by V, and of c; for every tensor
    steps: tuple[int, ...]  # of rows, which the kernels are compiled for


def _geometry(V: int, *tensors: torch.Tensor) -> Geometry:
    return _geometry_of(V, tuple([(t.shape, t.stride(), t.data_ptr() % 16 == 0) for t in tensors]))


@lru_cache(4096)
def _geometry_of(V: int, tensors: tuple[tuple, ...]) -> Geometry:
    """From (shape, strides, aligned) of the tensors; strides of axes of one element never count."""
    rows = [tuple(0 if shape[i] == 1 else stride[i] for i in range(3)) for shape, stride, _ in tensors]
    unit = all(stride[3] == 1 or shape[3] == 1 for shape, stride, _ in tensors)

    def allowed(V: int) -> bool:
        return unit and all(
            aligned and not any(n % V for n in (*row, shape[3])) for row, (shape, _, aligned) in zip(rows, tensors)
        )

    while V > 1 and not allowed(V):
        V //= 2
    strides = [n for row, (_, stride, _) in zip(rows, tensors) for n in (row[0] // V, row[1] // V, stride[3])]
    return Geometry(V, unit, tuple(strides), tuple(row[2] for row in rows))
