"""The GPU kernels of ONNX Runtime's operators: the same Triton kernels that PyTorch runs, for sizes not known before.

Where a model runs in PyTorch, its kernels are compiled for its row strides, groups and states. A library of operators
is compiled once for all models, so that these come as arguments here. All tensors are float32 and contiguous.

Names: b batch, k group of channels or order, t step, p token, c channel of the k, n state, NP states rounded up.
"""

import triton
import triton.language as tl

from mamba_vision.kernels.selective_scan import triton_forward

CHANNELS = tl.constexpr(32)  # of a program: one a lane
PACKED_STEPS = tl.constexpr(64)
TOKENS = tl.constexpr(64)  # of a tile of step sizes
RANKS = tl.constexpr(16)
VALUES = tl.constexpr(1024)  # of a program where values stand alone


@triton.jit
def pack(
    A, B, C, At, rows, order, length, padded, channels, order_batch, batch_stride, group_stride, row_stride, n_tiles,
    n_bk, K, N, NP: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """A (k c, n) to At (k, n, c) times log2(e); B and C (b, row, k, n) to rows (b k, t, 2 NP), as `scan` reads them."""
    triton_forward.pack(
        A, B, C, At, rows, rows, order, length, padded, channels, order_batch,
        N, 1, batch_stride, group_stride, row_stride, 1, batch_stride, group_stride, row_stride, 1, n_tiles, n_bk,
        K, N, NP, PACKED_STEPS, True, True, ORDER, True, False, False,
    )  # fmt: skip


@triton.jit
def scan(
    u, delta, z, y, D, bias, rows, At, ends, decays, entering, order, length, padded, channels, n_ctiles, n_chunks,
    chunk_steps, order_batch, u_batch, u_group, y_batch, y_group, row_stride, K, N,
    NP: tl.constexpr, T: tl.constexpr, PHASE: tl.constexpr, HAS_Z: tl.constexpr, SOFTPLUS: tl.constexpr,
    ORDER: tl.constexpr,
):  # fmt: skip
    """triton_forward.scan_states; z lies like u, delta like y. With ORDER the rows of all are tokens."""
    triton_forward.scan_states(
        u, delta, rows, At, u, u, D, bias, z, y, u, u, entering, ends, decays, u, order,
        length, padded, channels, 1, n_ctiles, n_chunks, 0, order_batch, 0, 0, 0, 0,
        u_batch, u_group, 1, y_batch, y_group, 1, u_batch, u_group, 1, y_batch, y_group, 1,
        row_stride, row_stride, row_stride, row_stride, K, N, NP, CHANNELS, T, 1, chunk_steps, 8, PHASE, False, False,
        False, True, HAS_Z, True, True, False, SOFTPLUS, True, False, False, ORDER, ORDER, ORDER, ORDER, False, False,
        0, False,
    )  # fmt: skip


@triton.jit
def carry(ends, decays, At, entering, channels, n_ctiles, n_chunks, K, N, NP: tl.constexpr):
    """What enters each chunk."""
    triton_forward.carry(
        ends, decays, At, ends, entering, channels, n_ctiles, n_chunks, K, N, NP, CHANNELS, False, False, False
    )


@triton.jit
def token_numbers(order, numbers, count, tokens):
    """order in int64 to int32; -1, which the scan passes over, for what is no token's number."""
    at = tl.program_id(0).to(tl.int64) * VALUES + tl.arange(0, VALUES)
    token = tl.load(order + at, mask=at < count, other=0)
    tl.store(numbers + at, tl.where((token >= 0) & (token < tokens), token, -1).to(tl.int32), mask=at < count)


@triton.jit
def step_sizes(dt, weight, delta, tokens, channels, rank, n_ttiles, n_ctiles, K):
    """delta (b, k, p, c) = Σ_r dt (b, p, k, r) weight (k, c, r)"""
    pid = tl.program_id(0)
    c = (pid % n_ctiles) * CHANNELS + tl.arange(0, CHANNELS)
    p = ((pid // n_ctiles) % n_ttiles) * TOKENS + tl.arange(0, TOKENS)
    bk = pid // n_ctiles // n_ttiles
    k = bk % K
    r = tl.arange(0, RANKS)
    dt_rows = dt + (((bk // K).to(tl.int64) * tokens + p) * K + k)[:, None] * rank
    weight_columns = weight + (k * channels + c).to(tl.int64)[None, :] * rank
    total = tl.zeros([TOKENS, CHANNELS], tl.float32)
    for r0 in range(0, rank, RANKS):
        inside = r0 + r < rank
        a = tl.load(dt_rows + (r0 + r)[None, :], mask=(p < tokens)[:, None] & inside[None, :], other=0.0)
        w = tl.load(weight_columns + (r0 + r)[:, None], mask=inside[:, None] & (c < channels)[None, :], other=0.0)
        total += tl.dot(a, w, input_precision="ieee")
    at = (bk.to(tl.int64) * tokens + p)[:, None] * channels + c[None, :]
    tl.store(delta + at, total, mask=(p < tokens)[:, None] & (c < channels)[None, :])


@triton.jit
def add_orders(y, out, size, n_tiles, K):
    """out (b, size) = Σ_k y (b, k, size)"""
    pid = tl.program_id(0)
    b = (pid // n_tiles).to(tl.int64)
    at = (pid % n_tiles).to(tl.int64) * VALUES + tl.arange(0, VALUES)
    total = tl.zeros([VALUES], tl.float32)
    for k in range(K):
        total += tl.load(y + (b * K + k) * size + at, mask=at < size, other=0.0)
    tl.store(out + b * size + at, total, mask=at < size)
