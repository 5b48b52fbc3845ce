"""Causal depthwise convolution (+ SiLU): forward in one pass over memory, backward in two.

Tensors are views (b, k, row, c): k counts groups with weights of their own (one for causal_conv1d, the scan orders for
ordered_conv1d). With `order` (b or 1, k, step) the input's rows are tokens, -1 a row of zeros; all else has steps.
"""

import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import sigmoid


@triton.jit
def tap(
    x_p, x_t, initial_p, i_w, seq_p, s_t, seq_t, order_p, t, inside, mc, length,
    WIDTH: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_SEQ: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """Input rows at steps t (from -(WIDTH - 1) on), zero outside and where the sequence is another than seq_t."""
    valid = inside & (t >= 0) & (t < length)
    if HAS_SEQ:
        valid = valid & (tl.load(seq_p + t * s_t, mask=valid, other=-1) == seq_t)
    if ORDER:
        row = tl.load(order_p + t, mask=valid, other=-1)
        valid = valid & (row >= 0)
    else:
        row = t
    x = tl.load(x_p + row.to(tl.int64)[:, None] * x_t, mask=valid[:, None] & mc, other=0.0).to(tl.float32)
    if HAS_INITIAL:
        before = inside & (t < 0) & (t >= 1 - WIDTH)
        x += tl.load(initial_p + (t + WIDTH - 1)[:, None] * i_w, mask=before[:, None] & mc, other=0.0).to(tl.float32)
    return x


@triton.jit
def conv_forward(
    x, weight, bias, initial, seq, y, order, length, channels, n_ctiles, n_ttiles, order_b,
    x_b, x_k, x_t, x_c, y_b, y_k, y_t, y_c, w_c, w_w, i_b, i_c, i_w, s_b, s_t,
    K: tl.constexpr, WIDTH: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, SILU: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_SEQ: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    oc = (pid % n_ctiles) * BC + tl.arange(0, BC)
    t = ((pid // n_ctiles) % n_ttiles) * BT + tl.arange(0, BT)
    bk = pid // n_ctiles // n_ttiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    mc = (oc < channels)[None, :]
    inside = t < length
    kc = k * channels + oc
    seq_p = seq + b * s_b
    seq_t = t
    if HAS_SEQ:
        seq_t = tl.load(seq_p + t * s_t, mask=inside, other=-1)
    x_p = x + b * x_b + k * x_k + oc.to(tl.int64)[None, :] * x_c
    i_p = initial + b * i_b + kc[None, :] * i_c
    order_p = order + b * order_b + k * length
    acc = tl.zeros([BT, BC], tl.float32)
    if HAS_BIAS:
        acc += tl.load(bias + kc, mask=oc < channels, other=0.0)[None, :]
    for j in tl.static_range(WIDTH):
        w = tl.load(weight + kc * w_c + j * w_w, mask=oc < channels, other=0.0)[None, :]
        acc += w * tap(
            x_p, x_t, i_p, i_w, seq_p, s_t, seq_t, order_p, t + (j - WIDTH + 1), inside, mc, length,
            WIDTH, HAS_INITIAL, HAS_SEQ, ORDER,
        )  # fmt: skip
    if SILU:
        acc = acc * sigmoid(acc)
    y_p = y + b * y_b + k * y_k + oc.to(tl.int64)[None, :] * y_c
    tl.store(y_p + t.to(tl.int64)[:, None] * y_t, acc, mask=inside[:, None] & mc)


@triton.jit
def conv_backward_weights(
    grad, x, weight, bias, initial, seq, c_bar, partial, order, length, channels, n_ctiles, n_ttiles,
    order_b, g_b, g_k, g_t, g_c, x_b, x_k, x_t, x_c, cb_b, cb_k, cb_t, cb_c, w_c, w_w, i_b, i_c, i_w, s_b, s_t,
    K: tl.constexpr, WIDTH: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, SILU: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_SEQ: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """c̄, the gradient before the SiLU; `partial` (b k, tile, WIDTH + 1, c): sums for weights and bias."""
    pid = tl.program_id(0)
    oc = (pid % n_ctiles) * BC + tl.arange(0, BC)
    tile = (pid // n_ctiles) % n_ttiles
    t = tile * BT + tl.arange(0, BT)
    bk = pid // n_ctiles // n_ttiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    mc = (oc < channels)[None, :]
    inside = t < length
    kc = k * channels + oc
    seq_p = seq + b * s_b
    seq_t = t
    if HAS_SEQ:
        seq_t = tl.load(seq_p + t * s_t, mask=inside, other=-1)
    x_p = x + b * x_b + k * x_k + oc.to(tl.int64)[None, :] * x_c
    i_p = initial + b * i_b + kc[None, :] * i_c
    order_p = order + b * order_b + k * length
    at = t.to(tl.int64)[:, None]
    mask = inside[:, None] & mc
    g_p = grad + b * g_b + k * g_k + oc.to(tl.int64)[None, :] * g_c
    g = tl.load(g_p + at * g_t, mask=mask, other=0.0).to(tl.float32)
    if SILU:
        c = tl.zeros([BT, BC], tl.float32)
        if HAS_BIAS:
            c += tl.load(bias + kc, mask=oc < channels, other=0.0)[None, :]
        for j in tl.static_range(WIDTH):
            c += tl.load(weight + kc * w_c + j * w_w, mask=oc < channels, other=0.0)[None, :] * tap(
                x_p, x_t, i_p, i_w, seq_p, s_t, seq_t, order_p, t + (j - WIDTH + 1), inside, mc, length,
                WIDTH, HAS_INITIAL, HAS_SEQ, ORDER,
            )  # fmt: skip
        sc = sigmoid(c)
        g = g * sc * (1.0 + c * (1.0 - sc))
        cb_p = c_bar + b * cb_b + k * cb_k + oc.to(tl.int64)[None, :] * cb_c
        tl.store(cb_p + at * cb_t, g, mask=mask)
    partial_p = partial + ((bk.to(tl.int64) * n_ttiles + tile) * (WIDTH + 1)) * channels + oc
    for j in tl.static_range(WIDTH):
        x_j = tap(
            x_p, x_t, i_p, i_w, seq_p, s_t, seq_t, order_p, t + (j - WIDTH + 1), inside, mc, length,
            WIDTH, HAS_INITIAL, HAS_SEQ, ORDER,
        )  # fmt: skip
        tl.store(partial_p + j * channels, tl.sum(g * x_j, 0), mask=oc < channels)
    tl.store(partial_p + WIDTH * channels, tl.sum(g, 0), mask=oc < channels)


@triton.jit
def conv_backward_input(
    c_bar, weight, seq, dx, dinitial, first, length, channels, n_ctiles, n_ttiles,
    cb_b, cb_k, cb_t, cb_c, dx_b, dx_k, dx_t, dx_c, w_c, w_w, i_b, i_c, i_w, s_b, s_t,
    K: tl.constexpr, WIDTH: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
    HAS_INITIAL: tl.constexpr, HAS_SEQ: tl.constexpr,
):  # fmt: skip
    """dx at t is Σ_m weight[WIDTH - 1 - m] c̄[t + m]. Steps start at `first`: 0, or -(WIDTH - 1) where there is an
    initial state, whose gradient are the steps before 0."""
    pid = tl.program_id(0)
    oc = (pid % n_ctiles) * BC + tl.arange(0, BC)
    t = first + ((pid // n_ctiles) % n_ttiles) * BT + tl.arange(0, BT)
    bk = pid // n_ctiles // n_ttiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    mc = (oc < channels)[None, :]
    kc = k * channels + oc
    seq_p = seq + b * s_b
    if HAS_SEQ:
        here = tl.load(seq_p + t * s_t, mask=(t >= 0) & (t < length), other=-1)
    cb_p = c_bar + b * cb_b + k * cb_k + oc.to(tl.int64)[None, :] * cb_c
    acc = tl.zeros([BT, BC], tl.float32)
    for m in tl.static_range(WIDTH):
        later = t + m
        inside = (later >= 0) & (later < length)
        if HAS_SEQ:
            inside = inside & (tl.load(seq_p + later * s_t, mask=inside, other=-2) == here)
        w = tl.load(weight + kc * w_c + (WIDTH - 1 - m) * w_w, mask=oc < channels, other=0.0)[None, :]
        rows = cb_p + later.to(tl.int64)[:, None] * cb_t
        acc += w * tl.load(rows, mask=inside[:, None] & mc, other=0.0).to(tl.float32)
    dx_p = dx + b * dx_b + k * dx_k + oc.to(tl.int64)[None, :] * dx_c
    tl.store(dx_p + t.to(tl.int64)[:, None] * dx_t, acc, mask=((t >= 0) & (t < length))[:, None] & mc)
    if HAS_INITIAL:
        before = (t < 0) & (t >= 1 - WIDTH)
        di_p = dinitial + b * i_b + kc[None, :] * i_c
        tl.store(di_p + (t + WIDTH - 1)[:, None] * i_w, acc, mask=before[:, None] & mc)
