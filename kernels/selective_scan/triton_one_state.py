"""The selective scan of one state a channel (VMamba), forward and backward; names and layouts as in triton_forward.

Rows are so cheap here that a lone warp waits for memory most of the time. So W warps work side by side on W runs of T
steps, tiles [T, W * BC] = registers, warps and lanes. Each warp reduces its run to (decay, what it adds); a scan over
the warps gives every run its true first state, and a second pass from there the outputs.
"""
# ruff: noqa: PIE808 (conditions on constants stay apart)

import triton
import triton.language as tl

from mamba_vision.kernels.selective_scan.triton_forward import (
    across,
    fetch,
    log2_step_sizes,
    put,
    row_numbers,
    row_pointers,
    step_sizes,
)
from mamba_vision.kernels.triton_common import (
    LN2,
    LOG2E,
    PTX,
    after_previous,
    ex2,
    lane_sums,
    pick,
    prefetch,
    rcp,
    sigmoid,
    summed_row,
    widen,
)  # fmt: skip


@triton.jit
def _after(a0, x0, e0, y0, a1, x1, e1, y1):
    """Runs in sequence: (a, x) all of them; (e, y) all but the last."""
    return a0 * a1, a1 * x0 + x1, e1 * a0, e1 * x0 + y1


@triton.jit
def runs_from(carried, a, x, W: tl.constexpr, BC: tl.constexpr):
    """What enters each of W runs side by side, and what leaves the last, if run w makes h into a h + x.

    All [W * BC]; `carried` and the last result are the same in every run.
    """
    if W == 1:
        return carried, a * carried + x
    else:
        a2 = tl.reshape(a, [W, BC])
        x2 = tl.reshape(x, [W, BC])
        ones = tl.full([W, BC], 1.0, tl.float32)
        zero = tl.zeros([W, BC], tl.float32)
        a_all, x_all, a_before, x_before = tl.associative_scan((a2, x2, ones, zero), 0, _after)
        carried2 = tl.reshape(carried, [W, BC])
        leaving = a_all * carried2 + x_all
        leaving = tl.sum(tl.where(tl.arange(0, W)[:, None] == W - 1, leaving, 0.0), 0)
        leaving = tl.broadcast_to(leaving[None, :], [W, BC])
        return tl.reshape(a_before * carried2 + x_before, [W * BC]), tl.reshape(leaving, [W * BC])


@triton.jit
def prefetch_pieces(
    x0, x1, x2, x3, s0: tl.constexpr, s1: tl.constexpr, s2: tl.constexpr, s3: tl.constexpr, e0: tl.constexpr,
    e1: tl.constexpr, e2: tl.constexpr, e3: tl.constexpr, t0: tl.constexpr, t1: tl.constexpr, t2: tl.constexpr,
    t3: tl.constexpr, t, p, inside, which, piece, channels, NEAR: tl.constexpr,
):  # fmt: skip
    """Ask for rows t (or tokens p where t0..t3) of up to four tensors at int64 addresses, 64 bytes a thread."""
    t = t.to(tl.int64)
    p = p.to(tl.int64)
    a = x0 + (p if t0 else t) * (s0 * e0)
    size = tl.zeros_like(which) + e0
    a = tl.where(which == 1, x1 + (p if t1 else t) * (s1 * e1), a)
    size = tl.where(which == 1, e1, size)
    a = tl.where(which == 2, x2 + (p if t2 else t) * (s2 * e2), a)
    size = tl.where(which == 2, e2, size)
    a = tl.where(which == 3, x3 + (p if t3 else t) * (s3 * e3), a)
    size = tl.where(which == 3, e3, size)
    prefetch(a + piece * 64, inside & (p >= 0) & (piece * 64 < channels * size), NEAR)


@triton.jit
def spread(x, T: tl.constexpr, W: tl.constexpr, BC: tl.constexpr):
    """[T, W] to [T, W * BC]."""
    return tl.reshape(tl.broadcast_to(x[:, :, None], [T, W, BC]), [T, W * BC])


@triton.jit(do_not_specialize=["cv", "one", "u_b", "u_k", "d_b", "d_k", "z_b", "z_k", "y_b", "y_k"])
def scan_one_state(
    u, delta, Bt, Ct, A, Bc, Cc, D, bias, z, y, initial, last, saved, order,
    length, cv, one, n_ctiles, n_tiles, order_b, a_c, bc_c, cc_c, bt_b, bt_k, ct_b, ct_k,
    u_b, u_k, u_c, d_b, d_k, d_c, z_b, z_k, z_c, y_b, y_k, y_c,
    u_s: tl.constexpr, d_s: tl.constexpr, z_s: tl.constexpr, y_s: tl.constexpr,
    K: tl.constexpr, BC: tl.constexpr, T: tl.constexpr, W: tl.constexpr, V: tl.constexpr, EVERY: tl.constexpr,
    FULL: tl.constexpr, PADDED: tl.constexpr, LQ: tl.constexpr, WHOLE: tl.constexpr, EACH: tl.constexpr,
    UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr,
    U_TOKENS: tl.constexpr, D_TOKENS: tl.constexpr, Y_TOKENS: tl.constexpr, KEEP: tl.constexpr, LAST: tl.constexpr,
    NEAR: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    bk = pid // n_ctiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    channels = cv * V
    column = tl.arange(0, W * BC)
    w = column // BC
    oc = pc * BC + column % BC
    ot = tl.arange(0, T)
    ot_c = ot[:, None]
    step = ot[:, None] + tl.arange(0, W)[None, :] * T  # [T, W]
    if WHOLE:
        mc = oc >= 0
    else:
        mc = oc < channels
    kc = k * channels + oc
    own = b * K * channels + kc
    bias_c = tl.zeros([W * BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0) * LOG2E
    if HAS_D:
        D_c = tl.load(D + kc, mask=mc, other=0.0)
    a_c = tl.load(A + kc * a_c, mask=mc, other=0.0)
    if CONST_B:
        B_c = tl.load(Bc + kc * bc_c, mask=mc, other=0.0).to(tl.float32) * LN2
        B_t = tl.broadcast_to(B_c[None, :], [T, W * BC])
    if CONST_C:
        C_t = tl.broadcast_to(tl.load(Cc + kc * cc_c, mask=mc, other=0.0).to(tl.float32)[None, :], [T, W * BC])
    if HAS_INITIAL:
        carried = tl.load(initial + own, mask=mc, other=0.0)
    else:
        carried = tl.zeros([W * BC], tl.float32)
    run = w.to(tl.int64) * T  # first step of the column's run
    u_p = u + (b * u_b + k * u_k) * V + (across(oc, u_c, UNIT) + (0 if U_TOKENS else run * u_s))[None, :]
    d_p = delta + (b * d_b + k * d_k) * V + (across(oc, d_c, UNIT) + (0 if D_TOKENS else run * d_s))[None, :]
    z_p = z + (b * z_b + k * z_k) * V + (across(oc, z_c, UNIT) + run * z_s)[None, :]
    y_p = y + (b * y_b + k * y_k) * V + (across(oc, y_c, UNIT) + (0 if Y_TOKENS else run * y_s))[None, :]
    order_p = order + tl.multiple_of(b * order_b + k * length, LQ)
    B_p = Bt + (tl.multiple_of(b * bt_b + k * bt_k, LQ) if PADDED or not CONST_B else 0)
    C_p = Ct + (tl.multiple_of(b * ct_b + k * ct_k, LQ) if PADDED or not CONST_C else 0)
    zero64 = b * 0

    ALL: tl.constexpr = FULL and WHOLE
    ALL_P: tl.constexpr = ALL and (EACH or not ORDER)
    ALL_U: tl.constexpr = ALL_P if U_TOKENS else ALL
    ALL_D: tl.constexpr = ALL_P if D_TOKENS else ALL
    last_tile = length - T * W
    SAFE: tl.constexpr = FULL or PADDED
    last_run = tl.cdiv(length, T * W) * (T * W) - T * W
    if not CONST_B:
        B_next = fetch(B_p + step, step < length, SAFE)
    if not CONST_C:
        C_next = fetch(C_p + step, step < length, SAFE)
    p = spread(row_numbers(order_p, step, step < length, ORDER, FULL), T, W, BC)
    later = (tl.minimum(T * W, last_tile) + step) if FULL else (T * W + step)
    p_next = row_numbers(order_p, later, later < length, ORDER, FULL)
    m_s = (ot_c + (w * T)[None, :] < length) & mc[None, :]
    m_p = (m_s & (p >= 0)) if ORDER else m_s
    u_next = fetch(row_pointers(u_p, p, zero64, ot_c, one, u_s, UNIT, U_TOKENS), m_p if U_TOKENS else m_s, ALL_U)
    d_next = fetch(row_pointers(d_p, p, zero64, ot_c, one, d_s, UNIT, D_TOKENS), m_p if D_TOKENS else m_s, ALL_D)
    # a thread for every 64 bytes of the tile after the next one
    u_e: tl.constexpr = u.dtype.element_ty.primitive_bitwidth // 8
    d_e: tl.constexpr = delta.dtype.element_ty.primitive_bitwidth // 8
    PIECES: tl.constexpr = BC * (u_e if u_e > d_e else d_e) // 64
    place = tl.arange(0, 2 * T * W * PIECES)
    which = place // (T * W * PIECES)
    piece = (place // (T * W)) % PIECES
    far = place % (T * W)
    u_first = (u + (b * u_b + k * u_k) * V + pc * BC).to(tl.int64)
    d_first = (delta + (b * d_b + k * d_k) * V + pc * BC).to(tl.int64)
    if NEAR > 0 and UNIT:
        t_far = 2 * T * W + far
        p_far = row_numbers(order_p, t_far, t_far < length, ORDER, False)
    for t0 in range(0, length, T * W):
        now = zero64 + t0
        if NEAR > 0 and UNIT:
            t_far = t0 + 2 * T * W + far
            prefetch_pieces(
                u_first, d_first, u_first, u_first, u_s, d_s, u_s, u_s, u_e, d_e, u_e, u_e, U_TOKENS, D_TOKENS, False,
                False, t_far, p_far, t_far < length, which, piece, channels - pc * BC, NEAR,
            )  # fmt: skip
            p_far = row_numbers(order_p, t_far + T * W, t_far + T * W < length, ORDER, False)
        inside = t0 + ot_c + (w * T)[None, :] < length
        p_now = p
        u_t = widen(u_next, V)
        d_now = d_next
        if HAS_Z:
            z_t = fetch(row_pointers(z_p, p, now, ot_c, one, z_s, UNIT, False), inside & mc[None, :], ALL)
            z_t = z_t.to(tl.float32)
        if not CONST_B:
            B_t = spread(widen(B_next, 2) * LN2, T, W, BC)
            B_next = fetch(B_p + tl.minimum(now + T * W, last_run) + step, t0 + T * W + step < length, SAFE)
        if not CONST_C:
            C_t = spread(widen(C_next, 2), T, W, BC)
            C_next = fetch(C_p + tl.minimum(now + T * W, last_run) + step, t0 + T * W + step < length, SAFE)
        p = spread(p_next, T, W, BC)
        if FULL:  # behind the last tile, it is loaded again: cheaper than masks
            ahead = zero64 + tl.minimum(t0 + T * W, last_tile)
            later = tl.minimum(t0 + 2 * T * W, last_tile) + step
        else:
            ahead = now + T * W
            later = t0 + 2 * T * W + step
        m_s = (t0 + T * W + ot_c + (w * T)[None, :] < length) & mc[None, :]
        m_p = (m_s & (p >= 0)) if ORDER else m_s
        u_next = fetch(row_pointers(u_p, p, ahead, ot_c, one, u_s, UNIT, U_TOKENS), m_p if U_TOKENS else m_s, ALL_U)
        d_next = fetch(row_pointers(d_p, p, ahead, ot_c, one, d_s, UNIT, D_TOKENS), m_p if D_TOKENS else m_s, ALL_D)
        p_next = row_numbers(order_p, later, later < length, ORDER, FULL)

        # step sizes in units of ln 2, which saves a product in softplus and one in the decay; B makes up for it
        s = log2_step_sizes(d_now, bias_c[None, :], inside, SOFTPLUS, PRECISE, FULL, V)
        a = ex2(s * a_c[None, :])
        su = s * u_t
        h = carried
        if W > 1:
            x = tl.zeros([W * BC], tl.float32)
            for i in tl.static_range(T):
                x = pick(a, i, ot_c) * x + pick(su, i, ot_c) * pick(B_t, i, ot_c)
            h, carried = runs_from(carried, ex2(tl.sum(s, 0) * a_c), x, W, BC)
        y_t = tl.zeros([T, W * BC], tl.float32)
        if HAS_D:
            y_t = D_c[None, :] * u_t
        for i in tl.static_range(T):
            if KEEP and i % EVERY == 0:
                first = t0 + w * T + i
                at = (bk.to(tl.int64) * n_tiles + first // EVERY) * channels + oc
                tl.store(saved + at, h, mask=(first % EVERY == 0) & (first < length) & mc)
            h = pick(a, i, ot_c) * h + pick(su, i, ot_c) * pick(B_t, i, ot_c)
            y_t = tl.where(ot_c == i, y_t + (h * pick(C_t, i, ot_c))[None, :], y_t)
        if W == 1:
            carried = h
        if HAS_Z:
            y_t = y_t * z_t * sigmoid(z_t)
        m_y = inside & mc[None, :]
        put(row_pointers(y_p, p_now, now, ot_c, one, y_s, UNIT, Y_TOKENS), y_t,
            (m_y & (p_now >= 0)) if Y_TOKENS else m_y,
            ALL_P if Y_TOKENS else ALL)  # fmt: skip
    if LAST:  # beyond the end the step size is 0, so the state stays
        tl.store(last + own, carried, mask=(w == 0) & mc)


@triton.jit(do_not_specialize=["cv", "one", "u_b", "u_k", "d_b", "d_k", "z_b", "z_k", "g_b", "g_k",
                               "du_b", "du_k", "dd_b", "dd_k", "dz_b", "dz_k"])  # fmt: skip
def backward_one_state(
    u, delta, Bt, Ct, A, Bc, Cc, D, bias, z, grad, grad_last, saved, du, ddelta, dz, sums, partial, dinitial, order,
    length, padded, cv, one, n_ctiles, n_tiles, n_bk, order_b, a_c, bc_c, cc_c, bt_b, bt_k, ct_b, ct_k,
    u_b, u_k, u_c, d_b, d_k, d_c, z_b, z_k, z_c, g_b, g_k, g_c, du_b, du_k, du_c, dd_b, dd_k, dd_c, dz_b, dz_k, dz_c,
    u_s: tl.constexpr, d_s: tl.constexpr, z_s: tl.constexpr, g_s: tl.constexpr,
    du_s: tl.constexpr, dd_s: tl.constexpr, dz_s: tl.constexpr,
    K: tl.constexpr, BC: tl.constexpr, W: tl.constexpr, V: tl.constexpr,
    FULL: tl.constexpr, PADDED: tl.constexpr, LQ: tl.constexpr, WHOLE: tl.constexpr, EACH: tl.constexpr,
    UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LAST: tl.constexpr, INITIAL: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr,
    U_TOKENS: tl.constexpr, D_TOKENS: tl.constexpr, DD_TOKENS: tl.constexpr, FAST: tl.constexpr, AHEAD: tl.constexpr,
    NEAR: tl.constexpr, EXACT: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Tiles from the last to the first; warp 0 has a tile's last run, so that the adjoint moves from warp to warp."""
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    bk = pid // n_ctiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    T: tl.constexpr = 8
    R: tl.constexpr = 3 + (1 if CONST_B else 0) + (1 if CONST_C else 0)
    channels = cv * V
    column = tl.arange(0, W * BC)
    w = (W - 1) - column // BC  # the column's run of the tile
    oc = pc * BC + column % BC
    ot = tl.arange(0, T)
    ot_c = ot[:, None]
    step = ot[:, None] + ((W - 1) - tl.arange(0, W))[None, :] * T
    lane = tl.arange(0, W * 32) % 32
    lane_run = (W - 1) - tl.arange(0, W * 32) // 32
    select = tl.where((lane // 4)[None, :] == ot_c, 1.0, 0.0)
    if WHOLE:
        mc = oc >= 0
    else:
        mc = oc < channels
    kc = k * channels + oc
    own = b * K * channels + kc
    bias_c = tl.zeros([W * BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    D_c = tl.zeros([W * BC], tl.float32)
    if HAS_D:
        D_c = tl.load(D + kc, mask=mc, other=0.0)
    a_c = tl.load(A + kc * a_c, mask=mc, other=0.0) * LOG2E
    if CONST_B:
        B_t = tl.broadcast_to(tl.load(Bc + kc * bc_c, mask=mc, other=0.0).to(tl.float32)[None, :], [T, W * BC])
    if CONST_C:
        C_t = tl.broadcast_to(tl.load(Cc + kc * cc_c, mask=mc, other=0.0).to(tl.float32)[None, :], [T, W * BC])
    carried = tl.zeros([W * BC], tl.float32)
    if HAS_LAST:
        carried = tl.load(grad_last + own, mask=mc, other=0.0)
    sum_A = tl.zeros([W * BC], tl.float32)
    sum_D = tl.zeros([W * BC], tl.float32)
    sum_bias = tl.zeros([W * BC], tl.float32)
    sum_B = tl.zeros([W * BC], tl.float32)
    sum_C = tl.zeros([W * BC], tl.float32)
    run = w.to(tl.int64) * T
    u_p = u + (b * u_b + k * u_k) * V + (across(oc, u_c, UNIT) + (0 if U_TOKENS else run * u_s))[None, :]
    d_p = delta + (b * d_b + k * d_k) * V + (across(oc, d_c, UNIT) + (0 if D_TOKENS else run * d_s))[None, :]
    g_p = grad + (b * g_b + k * g_k) * V + (across(oc, g_c, UNIT) + (0 if ORDER else run * g_s))[None, :]
    z_p = z + (b * z_b + k * z_k) * V + (across(oc, z_c, UNIT) + run * z_s)[None, :]
    du_p = du + (b * du_b + k * du_k) * V + (across(oc, du_c, UNIT) + run * du_s)[None, :]
    dd_p = ddelta + (b * dd_b + k * dd_k) * V + (across(oc, dd_c, UNIT) + (0 if DD_TOKENS else run * dd_s))[None, :]
    dz_p = dz + (b * dz_b + k * dz_k) * V + (across(oc, dz_c, UNIT) + run * dz_s)[None, :]
    order_p = order + tl.multiple_of(b * order_b + k * length, LQ)
    B_p = Bt + (tl.multiple_of(b * bt_b + k * bt_k, LQ) if PADDED or not CONST_B else 0)
    C_p = Ct + (tl.multiple_of(b * ct_b + k * ct_k, LQ) if PADDED or not CONST_C else 0)
    dB_p = partial + (pc * n_bk + bk).to(tl.int64) * 2 * padded
    dC_p = dB_p + padded
    h_p = saved + (bk.to(tl.int64) * n_tiles + w) * channels + oc
    zero64 = b * 0

    ALL: tl.constexpr = FULL and WHOLE
    ALL_P: tl.constexpr = ALL and (EACH or not ORDER)
    ALL_U: tl.constexpr = ALL_P if U_TOKENS else ALL
    ALL_D: tl.constexpr = ALL_P if D_TOKENS else ALL
    tiles = tl.cdiv(length, T * W)
    t0 = (tiles - 1) * (T * W)
    now = zero64 + t0
    p = spread(row_numbers(order_p, t0 + step, t0 + step < length, ORDER, FULL), T, W, BC)
    earlier = tl.maximum(t0 - T * W, 0) + step
    p_next = row_numbers(order_p, earlier, earlier < length, ORDER, FULL)
    m_s = (t0 + ot_c + (w * T)[None, :] < length) & mc[None, :]
    m_p = (m_s & (p >= 0)) if ORDER else m_s
    u_next = fetch(row_pointers(u_p, p, now, ot_c, one, u_s, UNIT, U_TOKENS), m_p if U_TOKENS else m_s, ALL_U)
    g_next = fetch(row_pointers(g_p, p, now, ot_c, one, g_s, UNIT, ORDER), m_p, ALL_P)
    d_next = fetch(row_pointers(d_p, p, now, ot_c, one, d_s, UNIT, D_TOKENS), m_p if D_TOKENS else m_s, ALL_D)
    SAFE: tl.constexpr = FULL or PADDED
    if not CONST_B:
        B_next = fetch(B_p + now + step, t0 + step < length, SAFE)
    if not CONST_C:
        C_next = fetch(C_p + now + step, t0 + step < length, SAFE)
    h_next = fetch(h_p + (now // T) * channels, (t0 + w * T < length) & mc, ALL)
    # a thread for every 64 bytes of the tile after the next one
    u_e: tl.constexpr = u.dtype.element_ty.primitive_bitwidth // 8
    d_e: tl.constexpr = delta.dtype.element_ty.primitive_bitwidth // 8
    g_e: tl.constexpr = grad.dtype.element_ty.primitive_bitwidth // 8
    PIECES: tl.constexpr = BC * (u_e if u_e > d_e else d_e) // 64
    place = tl.arange(0, 4 * T * W * PIECES)
    which = place // (T * W * PIECES)
    piece = (place // (T * W)) % PIECES
    far = place % (T * W)
    u_first = (u + (b * u_b + k * u_k) * V + pc * BC).to(tl.int64)
    d_first = (delta + (b * d_b + k * d_k) * V + pc * BC).to(tl.int64)
    g_first = (grad + (b * g_b + k * g_k) * V + pc * BC).to(tl.int64)
    z_first = (z + (b * z_b + k * z_k) * V + pc * BC).to(tl.int64)
    if NEAR > 0 and UNIT:
        t_far = t0 - 2 * T * W + far
        p_far = row_numbers(order_p, t_far, t_far >= 0, ORDER, False)
    for i in range(0, tiles):
        t0 = (tiles - 1 - i) * (T * W)
        now = zero64 + t0
        if NEAR > 0 and UNIT:
            t_far = t0 - 2 * T * W + far
            prefetch_pieces(
                u_first, d_first, g_first, z_first, u_s, d_s, g_s, z_s, u_e, d_e, g_e, u_e, U_TOKENS, D_TOKENS, ORDER,
                False, t_far, p_far, (t_far >= 0) & (which < (4 if HAS_Z else 3)), which, piece, channels - pc * BC,
                NEAR,
            )  # fmt: skip
            p_far = row_numbers(order_p, t_far - T * W, t_far - T * W >= 0, ORDER, False)
        inside = t0 + ot_c + (w * T)[None, :] < length
        p_now = p
        before = tl.maximum(now - T * W, 0)
        if not CONST_B:
            B_t = spread(B_next.to(tl.float32), T, W, BC)
            B_next = fetch(B_p + before + step, before + step < length, SAFE)
        if not CONST_C:
            C_t = spread(C_next.to(tl.float32), T, W, BC)
            C_next = fetch(C_p + before + step, before + step < length, SAFE)
        h = h_next
        h_next = fetch(h_p + (before // T) * channels, mc, WHOLE)
        u_t = u_next.to(tl.float32)
        dout = g_next.to(tl.float32)
        dt = d_next.to(tl.float32) + bias_c[None, :]
        if HAS_Z:
            z_t = fetch(row_pointers(z_p, p, now, ot_c, one, z_s, UNIT, False), inside & mc[None, :], ALL)
            z_t = z_t.to(tl.float32)
        if AHEAD:  # before the first tile, it is loaded again
            p = spread(p_next, T, W, BC)
            m_s = (t0 - T * W + ot_c + (w * T)[None, :] >= 0) & mc[None, :]
            m_p = (m_s & (p >= 0)) if ORDER else m_s
            ahead = zero64 + tl.maximum(t0 - T * W, 0)
            u_next = fetch(row_pointers(u_p, p, ahead, ot_c, one, u_s, UNIT, U_TOKENS), m_p if U_TOKENS else m_s, ALL_U)
            g_next = fetch(row_pointers(g_p, p, ahead, ot_c, one, g_s, UNIT, ORDER), m_p, ALL_P)
            d_next = fetch(row_pointers(d_p, p, ahead, ot_c, one, d_s, UNIT, D_TOKENS), m_p if D_TOKENS else m_s, ALL_D)
            earlier = tl.maximum(t0 - 2 * T * W, 0) + step
            p_next = row_numbers(order_p, earlier, earlier < length, ORDER, FULL)
        s = step_sizes(dt, 0.0, inside, SOFTPLUS, PRECISE, FULL)
        yb = dout
        if HAS_Z:
            sz = sigmoid(z_t)
            yb = dout * z_t * sz
        a = ex2(s * a_c[None, :])
        su = s * u_t
        X = carried
        if W > 1:
            x = tl.zeros([W * BC], tl.float32)
            for j in tl.static_range(T):
                x = pick(a, T - 1 - j, ot_c) * (pick(yb, T - 1 - j, ot_c) * pick(C_t, T - 1 - j, ot_c) + x)
            X, carried = runs_from(carried, ex2(tl.sum(s, 0) * a_c), x, W, BC)
        g = a
        for j in tl.static_range(T):
            g_row = pick(yb, T - 1 - j, ot_c) * pick(C_t, T - 1 - j, ot_c) + X
            X = pick(a, T - 1 - j, ot_c) * g_row
            g = tl.where(ot_c == T - 1 - j, g_row[None, :], g)
        if W == 1:
            carried = X
        q = a
        h_t = a
        for j in tl.static_range(T):
            q_row = pick(a, j, ot_c) * h
            h = q_row + pick(su, j, ot_c) * pick(B_t, j, ot_c)
            q = tl.where(ot_c == j, q_row[None, :], q)
            h_t = tl.where(ot_c == j, h[None, :], h_t)
        gq = g * q
        gB = g * B_t
        dd = u_t * gB + gq * (a_c[None, :] * LN2)
        if SOFTPLUS:
            e = ex2(dt * LOG2E)
            dd *= tl.where(dt > 20.0, 1.0, e * rcp(1.0 + e))
        if not FULL:
            dd = tl.where(inside, dd, 0.0)
        x_t = su * g
        y_t = yb * h_t
        sum_A += tl.sum(s * gq, 0)
        sum_D += tl.sum(yb * u_t, 0)
        sum_bias += tl.sum(dd, 0)
        if CONST_B:
            sum_B += tl.sum(x_t, 0)
        if CONST_C:
            sum_C += tl.sum(y_t, 0)
        if not (CONST_B and CONST_C):
            if PTX and FAST:
                if BC == 64:  # two channels a thread: added in the thread, the rest over the lanes
                    x_t = tl.sum(tl.reshape(x_t, [T, W * 32, 2]), 2)
                    y_t = tl.sum(tl.reshape(y_t, [T, W * 32, 2]), 2)
                total = pick(lane_sums(x_t, y_t, select, EXACT), 0, ot_c)
                v = summed_row(lane)
                tl.store(tl.where(v < 8, dB_p, dC_p) + now + lane_run * T + v % 8, total, mask=(lane // 4) % 2 == 0)
            else:
                if not CONST_B:
                    tl.store(dB_p + now + step, tl.sum(tl.reshape(x_t, [T, W, BC]), 2))
                if not CONST_C:
                    tl.store(dC_p + now + step, tl.sum(tl.reshape(y_t, [T, W, BC]), 2))
        m_st = inside & mc[None, :]
        if HAS_Z:
            gate = dout * (h_t * C_t + D_c[None, :] * u_t) * sz * (1.0 + z_t * (1.0 - sz))
            put(row_pointers(dz_p, p_now, now, ot_c, one, dz_s, UNIT, False), gate, m_st, ALL)
        put(row_pointers(du_p, p_now, now, ot_c, one, du_s, UNIT, False), D_c[None, :] * yb + s * gB, m_st, ALL)
        put(row_pointers(dd_p, p_now, now, ot_c, one, dd_s, UNIT, DD_TOKENS), dd,
            (m_st & (p_now >= 0)) if DD_TOKENS else m_st, ALL_P if DD_TOKENS else ALL)  # fmt: skip
        if not AHEAD:
            p = spread(p_next, T, W, BC)
            m_s = (t0 - T * W + ot_c + (w * T)[None, :] >= 0) & mc[None, :]
            m_p = (m_s & (p >= 0)) if ORDER else m_s
            ahead = zero64 + tl.maximum(t0 - T * W, 0)
            u_next = fetch(row_pointers(u_p, p, ahead, ot_c, one, u_s, UNIT, U_TOKENS), m_p if U_TOKENS else m_s, ALL_U)
            g_next = fetch(row_pointers(g_p, p, ahead, ot_c, one, g_s, UNIT, ORDER), m_p, ALL_P)
            d_next = fetch(row_pointers(d_p, p, ahead, ot_c, one, d_s, UNIT, D_TOKENS), m_p if D_TOKENS else m_s, ALL_D)
            earlier = tl.maximum(t0 - 2 * T * W, 0) + step
            p_next = row_numbers(order_p, earlier, earlier < length, ORDER, FULL)
    first = pc * BC + tl.arange(0, BC)
    sum_p = sums + bk.to(tl.int64) * R * channels + first
    m_first = first < channels
    tl.store(sum_p, tl.sum(tl.reshape(sum_A, [W, BC]), 0), mask=m_first)
    tl.store(sum_p + channels, tl.sum(tl.reshape(sum_D, [W, BC]), 0), mask=m_first)
    tl.store(sum_p + 2 * channels, tl.sum(tl.reshape(sum_bias, [W, BC]), 0), mask=m_first)
    if CONST_B:
        tl.store(sum_p + 3 * channels, tl.sum(tl.reshape(sum_B, [W, BC]), 0), mask=m_first)
    if CONST_C:
        tl.store(sum_p + (R - 1) * channels, tl.sum(tl.reshape(sum_C, [W, BC]), 0), mask=m_first)
    if INITIAL:
        tl.store(dinitial + own, carried, mask=(w == 0) & mc)
