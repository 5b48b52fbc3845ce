"""Causal depthwise convolution (+ SiLU) of channels-last tokens: every row is read once, forward and backward.

A program walks over `run_steps` steps in tiles of T rows that lie in registers (a lane has V channels, see
triton_common), so the taps of a step are register names, and what reaches over a tile's edge is the tile before.
Tensors are views (b, k, row, c) with stride 1 between channels; `order` (b or 1, k, step) maps the steps of x to
rows, -1 to zeros.
"""

import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import after_previous, pick, sigmoid, widen


@triton.jit
def load_rows(
    x_p, x_t: tl.constexpr, order_p, t, mc, length, ORDER: tl.constexpr
):  # fmt: skip
    """Rows of steps t, zero outside of the sequence."""
    inside = (t >= 0) & (t < length)
    row = t
    if ORDER:
        row = tl.load(order_p + t, mask=inside, other=-1)
        inside = inside & (row >= 0)
    at = tl.max_contiguous(x_p + row.to(tl.int64)[:, None] * x_t, (1, 8))
    return tl.load(at, mask=inside[:, None] & mc[None, :], other=0.0)


@triton.jit
def row_before(before, now, i: tl.constexpr, T: tl.constexpr, ot):
    """Row i of a tile; of the tile before it for negative i."""
    if i < 0:
        return pick(before, T + i, ot)
    else:
        return pick(now, i, ot)


@triton.jit
def convolved(before, now, w_wc, bias_c, ow, ot, WIDTH: tl.constexpr, T: tl.constexpr):
    """Σ_j weight[j] x[t - (WIDTH - 1) + j] + bias for the rows of a tile."""
    out = now
    for i in tl.static_range(T):
        row = bias_c
        for j in tl.static_range(WIDTH):
            row += pick(w_wc, j, ow) * row_before(before, now, i + j - WIDTH + 1, T, ot)
        out = tl.where(ot == i, row[None, :], out)
    return out


@triton.jit
def weights_of(weight, kc, mc, ow, WIDTH: tl.constexpr, V: tl.constexpr):
    """The taps as rows [WP, BC]; weight (k c, WIDTH) contiguous."""
    at = weight + (kc * WIDTH)[None, :] + ow
    return tl.load(at, mask=mc[None, :] & (ow < WIDTH), other=0.0)


@triton.jit(do_not_specialize=["cv", "x_b", "x_k", "y_b", "y_k"])
def rows_forward(
    x, weight, bias, y, order, length, cv, n_ctiles, n_runs, run_steps, order_b, x_b, x_k, y_b, y_k,
    x_t: tl.constexpr, y_t: tl.constexpr,
    K: tl.constexpr, WIDTH: tl.constexpr, WP: tl.constexpr, T: tl.constexpr, BC: tl.constexpr, V: tl.constexpr,
    SILU: tl.constexpr, HAS_BIAS: tl.constexpr, ORDER: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    begin = ((pid // n_ctiles) % n_runs) * run_steps
    bk = pid // n_ctiles // n_runs
    b = (bk // K).to(tl.int64)
    k = bk % K
    channels = cv * V
    oc = pc * BC + tl.arange(0, BC)
    mc = oc < channels
    ot = tl.arange(0, T)[:, None]
    ow = tl.arange(0, WP)[:, None]
    kc = k * channels + oc
    w_wc = weights_of(weight, kc, mc, ow, WIDTH, V)
    bias_c = tl.zeros([BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    x_p = x + (b * x_b + k * x_k) * V + oc[None, :]
    y_p = y + (b * y_b + k * y_k) * V + oc[None, :]
    order_p = order + b * order_b + k * length
    t = begin + tl.arange(0, T)
    before = widen(load_rows(x_p, x_t, order_p, t - T, mc, length, ORDER), V)
    ahead = load_rows(x_p, x_t, order_p, t, mc, length, ORDER)
    for i in range(0, tl.minimum(run_steps, length - begin), T):
        t = begin + i + tl.arange(0, T)
        now = widen(ahead, V)
        ahead = load_rows(x_p, x_t, order_p, t + T, mc, length, ORDER)
        out = convolved(before, now, w_wc, bias_c, ow, ot, WIDTH, T)
        if SILU:
            out = out * sigmoid(out)
        at = tl.max_contiguous(y_p + t.to(tl.int64)[:, None] * y_t, (1, 8))
        tl.store(at, out, mask=(t < length)[:, None] & mc[None, :])
        before = now


@triton.jit(do_not_specialize=["cv", "g_b", "g_k", "x_b", "x_k", "dx_b", "dx_k"])
def rows_backward(
    grad, x, weight, bias, dx, partial, order, length, cv, n_ctiles, n_runs, run_steps, order_b,
    g_b, g_k, x_b, x_k, dx_b, dx_k,
    g_t: tl.constexpr, x_t: tl.constexpr, dx_t: tl.constexpr,
    K: tl.constexpr, WIDTH: tl.constexpr, WP: tl.constexpr, T: tl.constexpr, BC: tl.constexpr, V: tl.constexpr,
    SILU: tl.constexpr, HAS_BIAS: tl.constexpr, ORDER: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """dx by step, and `partial` (b k, run, WIDTH + 1, c): sums for the weights and the bias.

    dx at t needs c̄, the gradient before the SiLU, at t .. t + WIDTH - 1: a tile of dx is written once the next tile of
    c̄ is known; behind its run a program computes the first tile of the next one once more.
    """
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    run = (pid // n_ctiles) % n_runs
    begin = run * run_steps
    bk = pid // n_ctiles // n_runs
    b = (bk // K).to(tl.int64)
    k = bk % K
    channels = cv * V
    oc = pc * BC + tl.arange(0, BC)
    mc = oc < channels
    ot = tl.arange(0, T)[:, None]
    ow = tl.arange(0, WP)[:, None]
    kc = k * channels + oc
    w_wc = weights_of(weight, kc, mc, ow, WIDTH, V)
    bias_c = tl.zeros([BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    g_p = grad + (b * g_b + k * g_k) * V + oc[None, :]
    x_p = x + (b * x_b + k * x_k) * V + oc[None, :]
    dx_p = dx + (b * dx_b + k * dx_k) * V + oc[None, :]
    order_p = order + b * order_b + k * length
    t = begin + tl.arange(0, T)
    before = widen(load_rows(x_p, x_t, order_p, t - T, mc, length, ORDER), V)
    x_ahead = load_rows(x_p, x_t, order_p, t, mc, length, ORDER)
    g_ahead = load_rows(g_p, g_t, order_p, t, mc, length, False)
    cb_before = tl.zeros([T, BC], tl.float32)
    sums = tl.zeros([WP, BC], tl.float32)
    sum_bias = tl.zeros([BC], tl.float32)
    for i in range(0, tl.minimum(run_steps, length - begin) + T, T):
        t = begin + i + tl.arange(0, T)
        now = widen(x_ahead, V)
        g = widen(g_ahead, V)
        x_ahead = load_rows(x_p, x_t, order_p, t + T, mc, length, ORDER)
        g_ahead = load_rows(g_p, g_t, order_p, t + T, mc, length, False)
        cb = g
        if SILU:
            c = convolved(before, now, w_wc, bias_c, ow, ot, WIDTH, T)
            s = sigmoid(c)
            cb = g * s * (1.0 + c * (1.0 - s))
        own = i < run_steps  # the tile behind the run counts in the next program's sums
        for j in tl.static_range(WIDTH):
            total = tl.zeros([BC], tl.float32)
            for r in tl.static_range(T):
                total += pick(cb, r, ot) * row_before(before, now, r + j - WIDTH + 1, T, ot)
            sums = tl.where((ow == j) & own, sums + total[None, :], sums)
        sum_bias = tl.where(own, sum_bias + tl.sum(cb, 0), sum_bias)
        out = cb
        for r in tl.static_range(T):  # row r of the tile before
            row = tl.zeros([BC], tl.float32)
            for m in tl.static_range(WIDTH):
                row += pick(w_wc, WIDTH - 1 - m, ow) * row_before(cb_before, cb, r + m - T, T, ot)
            out = tl.where(ot == r, row[None, :], out)
        at = tl.max_contiguous(dx_p + (t - T).to(tl.int64)[:, None] * dx_t, (1, 8))
        tl.store(at, out, mask=((t >= T + begin) & (t - T < length))[:, None] & mc[None, :])
        cb_before = cb
        before = now
    p = partial + (((bk.to(tl.int64) * n_runs + run) * (WIDTH + 1)) * channels + oc)[None, :]
    tl.store(p + ow * channels, sums, mask=mc[None, :] & (ow < WIDTH))
    tl.store(p + WIDTH * channels, sum_bias[None, :], mask=mc[None, :])
