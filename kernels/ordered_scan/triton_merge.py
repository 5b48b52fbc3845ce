"""From results by step (b, k, t, c) back to tokens (b, p, c): the K orders added up, every visit of a token counted."""
# ruff: noqa: PIE808 (conditions on constants stay apart)

import weakref
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import after_previous, cdiv, sigmoid
from mamba_vision.kernels.triton_launcher import launch


@dataclass
class Visits:
    """An order turned round. The visits of token p in order k are steps[k, starts[k, p] : starts[k, p + 1]]."""

    order: torch.Tensor  # (b or 1, K, L) int32
    steps: torch.Tensor  # (b or 1, K, L) int32
    starts: torch.Tensor  # (b or 1, K, tokens + 1) int32
    once: torch.Tensor | bool  # every token exactly once: a fact, or a flag on the device not read yet

    def of_order(self, k: int) -> "Visits":
        one = slice(k, k + 1)
        return Visits(self.order[:, one], self.steps[:, one], self.starts[:, one], self.once)


_known: dict[int, tuple] = {}  # id of an order -> (weak reference, version, tokens, Visits)


def visits_of(order: torch.Tensor, tokens: int) -> Visits:
    """Visits of an order, remembered as long as that tensor lives unchanged (ScanOrders hand out the same one).

    Whether it is a permutation, which merges faster, takes a look at the device: at the second use, when it is done.
    """
    version = -1 if order.is_inference() else order._version
    known = _known.get(id(order))
    if known and known[0]() is order and known[1:3] == (version, tokens):
        visits = known[3]
        if not isinstance(visits.once, bool) and not _capturing(order):
            visits.once = bool(visits.once)
        return visits
    visits = _turn_round(order, tokens)
    if not _capturing(order):
        key = id(order)
        _known[key] = (weakref.ref(order, lambda _, known=_known: known.pop(key, None)), version, tokens, visits)
    return visits


def _turn_round(order: torch.Tensor, tokens: int) -> Visits:
    order = (order if order.dim() == 3 else order.unsqueeze(0)).to(torch.int32).contiguous()
    by_token, steps = order.sort(dim=2, stable=True)
    limits = torch.arange(tokens + 1, device=order.device, dtype=torch.int32)
    limits = limits.expand(*order.shape[:2], -1).contiguous()
    starts = torch.searchsorted(by_token, limits, out_int32=True)
    if order.shape[2] == tokens:
        once = (by_token == limits[..., :-1]).all()
    else:
        once = False
    return Visits(order, steps.to(torch.int32), starts, once)


def _capturing(order: torch.Tensor) -> bool:
    return order.is_cuda and torch.cuda.is_current_stream_capturing()


@triton.jit
def merge_kernel(
    y, out, z, grad, starts, steps, tokens, length, cv, n_ctiles, n_ttiles, n_rows, s_b, s_k, t_b, t_k,
    y_b, y_k, y_t, o_b, o_k, o_t, z_b, z_t, g_b, g_t, o_c, z_c, g_c,
    K: tl.constexpr, SUM: tl.constexpr, ONCE: tl.constexpr, V: tl.constexpr, UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, GRAD_Z: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """out (b, token, c) = Σ_k Σ_visits y, or (b, k, token, c) if not SUM; times silu(z); or the gradient of z."""
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    oc = (pid % n_ctiles) * BC + tl.arange(0, BC)
    p = ((pid // n_ctiles) % n_ttiles) * BT + tl.arange(0, BT)
    row = n_rows - 1 - pid // n_ctiles // n_ttiles  # the last written first: it may still be in L2
    if SUM:
        b = row.to(tl.int64)
    else:
        b = (row // K).to(tl.int64)
    inside = p < tokens
    channels = cv * V  # so that masks are known to end on whole vectors
    mc = (oc < channels)[None, :]
    acc = tl.zeros([BT, BC], tl.float32)
    for i in tl.static_range(K if SUM else 1):
        if SUM:
            k = i
        else:
            k = row % K
        y_p = y + b * (y_b * V) + k * (y_k * V) + oc[None, :]
        steps_p = steps + b * t_b + k * t_k
        if ONCE:
            t = tl.load(steps_p + p, mask=inside, other=0)
            acc += tl.load(y_p + t.to(tl.int64)[:, None] * y_t * V, mask=inside[:, None] & mc, other=0.0).to(tl.float32)
        else:
            first = tl.load(starts + b * s_b + k * s_k + p, mask=inside, other=0)
            count = tl.load(starts + b * s_b + k * s_k + p + 1, mask=inside, other=0) - first
            for j in range(0, tl.max(count, 0)):
                there = j < count
                t = tl.load(steps_p + first + j, mask=there, other=0)
                acc += tl.load(
                    y_p + t.to(tl.int64)[:, None] * y_t * V, mask=there[:, None] & mc, other=0.0
                ).to(tl.float32)  # fmt: skip
    mask = inside[:, None] & mc
    at = p.to(tl.int64)[:, None]
    if UNIT:
        oo = oc[None, :]
        oz = oo
        og = oo
    else:
        oo = oc.to(tl.int64)[None, :] * o_c
        oz = oc.to(tl.int64)[None, :] * z_c
        og = oc.to(tl.int64)[None, :] * g_c
    if HAS_Z:
        z_t_c = tl.load(z + b * (z_b * V) + at * z_t * V + oz, mask=mask, other=0.0).to(tl.float32)
        sz = sigmoid(z_t_c)
        if GRAD_Z:
            g = tl.load(grad + b * (g_b * V) + at * g_t * V + og, mask=mask, other=0.0).to(tl.float32)
            acc = g * acc * sz * (1.0 + z_t_c * (1.0 - sz))
        else:
            acc = acc * z_t_c * sz
    o_p = out + b * (o_b * V)
    if not SUM:
        o_p += (row % K).to(tl.int64) * (o_k * V)
    tl.store(o_p + at * o_t * V + oo, acc, mask=mask)


def merge(y: torch.Tensor, visits: Visits, out: torch.Tensor, z=None, grad=None) -> None:
    """Fill out (b, tokens, c) with the sum over orders, or (b, K, tokens, c) without it, from y (b, K, L, c) by step.

    z (b, tokens, c) gates the sum; with grad, out is the gradient of z instead.
    """
    batch, K, length, channels = y.shape
    summed = out.dim() == 3
    tokens = out.shape[-2]
    if out.numel() == 0:
        return
    z_or, g_or = (out if t is None else t for t in (z, grad))
    z3, g3 = (t[:, 0] if t.dim() == 4 else t for t in (z_or, g_or))
    V, BC, BT, numbers = _plan(
        (y.shape, y.stride()), (out.shape, out.stride()), z3.stride(), g3.stride(), visits.order.shape[0] == 1,
        visits.starts.stride(), visits.steps.stride(),
    )  # fmt: skip
    unit = out.stride(-1) == z3.stride(-1) == g3.stride(-1) == 1
    n_rows = batch * (1 if summed else K)
    launch(
        merge_kernel, cdiv(channels, BC) * cdiv(tokens, BT) * n_rows,
        y, out, z_or, g_or, visits.starts, visits.steps, tokens, length, channels // V, cdiv(channels, BC),
        cdiv(tokens, BT), n_rows, *numbers, out.stride(-1), z3.stride(-1), g3.stride(-1),
        K=K, SUM=summed, ONCE=visits.once is True, V=V, UNIT=unit, HAS_Z=z is not None, GRAD_Z=grad is not None, BT=BT,
        BC=BC, num_warps=4,
    )  # fmt: skip


@triton.jit
def gate_kernel(grad, z, out, rows, channels, g_r, z_r, ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """out (row, c) = grad silu(z)."""
    after_previous(OVERLAP)
    blocks = tl.cdiv(channels, BLOCK)
    row = ((tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    c = ((tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK))[None, :]
    mask = (row < rows) & (c < channels)
    z_rc = tl.load(z + row * z_r + c, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(grad + row * g_r + c, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * channels + c, g * z_rc * sigmoid(z_rc), mask=mask)


def gated_gradient(grad: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """grad silu(z) of (b, tokens, c) each, in float32."""
    channels = z.shape[2]
    # rows of all batch items at one distance, as slices of projections have them
    g, z = (t if t.stride(2) == 1 and t.stride(0) == t.shape[1] * t.stride(1) else t.contiguous() for t in (grad, z))
    out = torch.empty(z.shape, device=z.device, dtype=torch.float32)
    rows, block = z.shape[0] * z.shape[1], 128
    launch(
        gate_kernel, cdiv(rows, 16) * cdiv(channels, block), g, z, out, rows, channels, g.stride(1), z.stride(1),
        ROWS=16, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out


@lru_cache(1024)
def _plan(y, out, z, g, shared: bool, starts, steps) -> tuple[int, int, int, tuple[int, ...]]:
    """Channels a thread, block shape, and strides, from the shapes and strides of all."""
    (_, _, _, channels), y_strides = y
    out_shape, out_strides = out
    summed = len(out_shape) == 3
    # whole cache lines, of which narrower programs would read parts: 96 channels in one, not in three of 32
    widths = (128, 64) if channels > 32 else (32, 16)
    BC = min(widths, key=lambda size: (cdiv(channels, size) * size, -size))
    rows = [*y_strides[:3], out_strides[0], 0 if summed else out_strides[1], out_strides[-2], *z[:2], *g[:2]]
    V = 8
    while V > 1 and not (out_strides[-1] == z[-1] == g[-1] == 1 and not any(n % V for n in (*rows, channels))):
        V //= 2
    order = (0 if shared else starts[0], starts[1], 0 if shared else steps[0], steps[1])
    return V, BC, max(8, 2048 // BC), (*order, *(n // V for n in rows))
