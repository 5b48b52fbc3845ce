"""Backward kernels of the selective scan, channels-last; names and layouts as in triton_forward.

With g the gradient of the state after a step and X = a g what it hands to the step before:
g = C ȳ + X(next), s̄ = Σ g (u B + A a h(before)), ū = D ȳ + s Σ g B, Ā = Σ s g a h(before), B̄ = Σ_c s u g,
C̄ = Σ_c ȳ h.
Sums over channels leave a kernel as one partial sum a channel tile, sums over time as one a chunk; `finish` adds them
up. No two programs write to one place: no race, and the same bits every time.
"""
# ruff: noqa: SIM102, PIE808 (conditions on constants stay apart)

import triton
import triton.language as tl

from mamba_vision.kernels.selective_scan.triton_forward import (
    across,
    fetch,
    prefetch_rows,
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
)  # fmt: skip


@triton.jit(do_not_specialize=["cv", "one", "d_b", "d_k", "z_b", "z_k", "g_b", "g_k"])
def adjoint_of_chunks(
    delta, rows, At, Cc, bias, z, grad, ends, decays, order,
    length, padded, cv, one, n_ctiles, n_chunks, order_b, cc_c, cc_n,
    d_b, d_k, d_c, z_b, z_k, z_c, g_b, g_k, g_c, d_s: tl.constexpr, z_s: tl.constexpr, g_s: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BC: tl.constexpr, T: tl.constexpr, V: tl.constexpr,
    CHUNK: tl.constexpr, FULL: tl.constexpr, WHOLE: tl.constexpr, EACH: tl.constexpr, UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr, U_TOKENS: tl.constexpr,
    D_TOKENS: tl.constexpr, NEAR: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Every chunk's adjoint from zero: the X that it hands to the chunk before, and its sum of step sizes."""
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    chunk = (pid // n_ctiles) % n_chunks
    bk = pid // n_ctiles // n_chunks
    b = (bk // K).to(tl.int64)
    k = bk % K
    channels = cv * V
    oc = pc * BC + tl.arange(0, BC)
    on = tl.arange(0, NP)
    ot = tl.arange(0, T)
    ot_c = ot[:, None]
    if WHOLE:
        mc = oc >= 0
    else:
        mc = oc < channels
    kc = k * channels + oc
    bias_c = tl.zeros([BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    a_nc = tl.load(At + (k * NP + on[:, None]) * channels + oc[None, :], mask=mc[None, :], other=0.0)
    if CONST_C:
        mn = (on < N)[:, None] & mc[None, :]
        C_nc = tl.load(Cc + kc[None, :] * cc_c + on[:, None] * cc_n, mask=mn, other=0.0).to(tl.float32)
    d_p = delta + (b * d_b + k * d_k) * V + across(oc, d_c, UNIT)[None, :]
    z_p = z + (b * z_b + k * z_k) * V + across(oc, z_c, UNIT)[None, :]
    g_p = grad + (b * g_b + k * g_k) * V + across(oc, g_c, UNIT)[None, :]
    order_p = order + b * order_b + k * length
    row_p = rows + bk.to(tl.int64) * padded * (2 * NP) + NP

    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    begin64 = begin.to(tl.int64)
    tiles = tl.cdiv(end - begin, T)
    X = tl.zeros([NP, BC], tl.float32)
    total = tl.zeros([BC], tl.float32)
    t0 = begin + (tiles - 1) * T
    now = begin64 + (tiles - 1) * T
    ALL: tl.constexpr = FULL and WHOLE
    ALL_P: tl.constexpr = ALL and (EACH or not ORDER)
    ALL_D: tl.constexpr = ALL_P if D_TOKENS else ALL
    p = row_numbers(order_p, t0 + ot, t0 + ot < end, ORDER, FULL)
    t = tl.maximum(t0 - T, begin) + ot
    p_next = row_numbers(order_p, t, t < end, ORDER, FULL)
    m_s = (t0 + ot < end)[:, None] & mc[None, :]
    m_p = (m_s & (p >= 0)[:, None]) if ORDER else m_s
    d_next = fetch(row_pointers(d_p, p[:, None], now, ot_c, one, d_s, UNIT, D_TOKENS), m_p if D_TOKENS else m_s, ALL_D)
    g_next = fetch(row_pointers(g_p, p[:, None], now, ot_c, one, g_s, UNIT, ORDER), m_p, ALL_P)
    if HAS_Z:
        z_next = fetch(row_pointers(z_p, p[:, None], now, ot_c, one, z_s, UNIT, False), m_s, ALL)
    for i in range(0, tiles):
        t0 = begin + (tiles - 1 - i) * T
        now = begin64 + (tiles - 1 - i) * T
        inside = (t0 + ot < end)[:, None]
        d_now = d_next
        yb = g_next.to(tl.float32)
        if HAS_Z:
            z_tc = z_next.to(tl.float32)
        p = p_next
        m_s = (t0 - T + ot >= begin)[:, None] & mc[None, :]
        m_p = (m_s & (p >= 0)[:, None]) if ORDER else m_s
        ahead = begin64 + tl.maximum((tiles - 2 - i) * T, 0)  # before the first tile, it is loaded again
        d_next = fetch(row_pointers(d_p, p[:, None], ahead, ot_c, one, d_s, UNIT, D_TOKENS),
                       m_p if D_TOKENS else m_s, ALL_D)  # fmt: skip
        g_next = fetch(row_pointers(g_p, p[:, None], ahead, ot_c, one, g_s, UNIT, ORDER), m_p, ALL_P)
        if HAS_Z:
            z_next = fetch(row_pointers(z_p, p[:, None], ahead, ot_c, one, z_s, UNIT, False), m_s, ALL)
        t = tl.maximum(t0 - 2 * T, begin) + ot
        p_next = row_numbers(order_p, t, t < end, ORDER, FULL)
        if not CONST_C:
            prefetch_rows(row_p - NP + ahead * (2 * NP), T, NP, NEAR)
        s = step_sizes(d_now, bias_c[None, :], inside, SOFTPLUS, PRECISE, FULL)
        total += tl.sum(s, 0)
        if HAS_Z:
            yb = yb * z_tc * sigmoid(z_tc)
        for j in tl.static_range(T):
            yb_c = pick(yb, T - 1 - j, ot_c)[None, :]
            if CONST_C:
                g = X + yb_c * C_nc
            else:
                g = X + yb_c * tl.load(row_p + (now + (T - 1 - j)) * (2 * NP) + on)[:, None]
            X = ex2(pick(s, T - 1 - j, ot_c)[None, :] * a_nc) * g
    first = bk.to(tl.int64) * n_chunks + chunk
    tl.store(ends + (first * NP + on[:, None]) * channels + oc[None, :], X, mask=mc[None, :])
    tl.store(decays + first * channels + oc, total, mask=mc)


@triton.jit
def store_channel_sums(px, x, py, y, select, step, BC: tl.constexpr, FAST: tl.constexpr, EXACT: tl.constexpr):
    """px[t] = Σ_c x[t, c] and py likewise, for tiles of eight rows; `step` is 0..7 down axis 0."""
    if PTX and FAST:
        lane = tl.arange(0, 32)
        if BC == 64:  # two channels a thread: added in the thread, the rest over the lanes
            x = tl.sum(tl.reshape(x, [8, 32, 2]), 2)
            y = tl.sum(tl.reshape(y, [8, 32, 2]), 2)
        total = pick(lane_sums(x, y, select, EXACT), 0, step[:, None])
        v = summed_row(lane)
        tl.store(tl.where(v < 8, px, py) + v % 8, total, mask=(lane // 4) % 2 == 0)
    else:
        tl.store(px + step, tl.sum(x, 1))
        tl.store(py + step, tl.sum(y, 1))


@triton.jit
def prefetch_tile(
    u, d, g, z, order_p, t0, begin, channels, u_s: tl.constexpr, d_s: tl.constexpr, g_s: tl.constexpr,
    z_s: tl.constexpr, u_e: tl.constexpr, d_e: tl.constexpr, g_e: tl.constexpr, z_e: tl.constexpr, BC: tl.constexpr,
    U_TOKENS: tl.constexpr, D_TOKENS: tl.constexpr, ORDER: tl.constexpr, HAS_Z: tl.constexpr, NEAR: tl.constexpr,
):  # fmt: skip
    """The inputs' rows of the tile from t0 on: a lane for each tensor and row, 64 bytes at a time. u, d ... int64."""
    lane = tl.arange(0, 32)
    which = lane // 8
    t = t0 + lane % 8
    inside = t >= begin
    p = row_numbers(order_p, t, inside, ORDER, False)
    t64 = t.to(tl.int64)
    p64 = p.to(tl.int64)
    size = tl.where(which == 0, u_e, tl.where(which == 1, d_e, tl.where(which == 2, g_e, z_e)))
    row_u = u + (p64 if U_TOKENS else t64) * (u_s * u_e)
    row_d = d + (p64 if D_TOKENS else t64) * (d_s * d_e)
    row_g = g + p64 * (g_s * g_e)
    row_z = z + p64 * (z_s * z_e)
    row = tl.where(which == 0, row_u, tl.where(which == 1, row_d, tl.where(which == 2, row_g, row_z)))
    wanted = inside & (p >= 0)
    if not HAS_Z:
        wanted = wanted & (which < 3)
    for i in tl.static_range((BC * 4 + 63) // 64):
        if i * 64 < BC * u_e:
            prefetch(row + i * 64, wanted & (i * 64 < channels * size), NEAR)


@triton.jit
def prefetch_states(saved, row, channels, cols, padded, wanted, NP: tl.constexpr, BC: tl.constexpr, NEAR: tl.constexpr):
    """A tile's stored states (NP rows) and its B and C (2 NP rows)."""
    lane = tl.arange(0, 32)
    each: tl.constexpr = BC // 16  # 64 bytes a lane
    for i in tl.static_range((NP * each + 31) // 32):
        at = i * 32 + lane
        c = (at % each) * 16
        there = wanted & (at < NP * each) & (c < channels)
        prefetch((saved + (at // each).to(tl.int64) * row + c).to(tl.int64), there, NEAR)
    for i in tl.static_range((2 * NP + 31) // 32):
        n = i * 32 + lane
        prefetch((cols + n.to(tl.int64) * padded).to(tl.int64), wanted & (n < 2 * NP), NEAR)


@triton.jit(do_not_specialize=["cv", "one", "u_b", "u_k", "d_b", "d_k", "z_b", "z_k", "g_b", "g_k",
                               "du_b", "du_k", "dd_b", "dd_k", "dz_b", "dz_k"])  # fmt: skip
def backward_states(
    u, delta, cols, At, Bc, Cc, D, bias, z, grad, saved, adjoint, du, ddelta, dz, sums, partial, order,
    length, padded, cv, one, n_ctiles, n_chunks, n_tiles, n_bk, order_b, bc_c, bc_n, cc_c, cc_n,
    u_b, u_k, u_c, d_b, d_k, d_c, z_b, z_k, z_c, g_b, g_k, g_c, du_b, du_k, du_c, dd_b, dd_k, dd_c, dz_b, dz_k, dz_c,
    u_s: tl.constexpr, d_s: tl.constexpr, z_s: tl.constexpr, g_s: tl.constexpr,
    du_s: tl.constexpr, dd_s: tl.constexpr, dz_s: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BC: tl.constexpr, V: tl.constexpr, CHUNK: tl.constexpr,
    FULL: tl.constexpr, WHOLE: tl.constexpr, EACH: tl.constexpr, UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr,
    U_TOKENS: tl.constexpr, D_TOKENS: tl.constexpr, DD_TOKENS: tl.constexpr,
    UNROLL: tl.constexpr, FAST: tl.constexpr, RELOAD: tl.constexpr, NEAR: tl.constexpr,
    EXACT: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Many states: tiles [8, BC] from the last to the first, one state at a time, its states rebuilt from `saved`.

    `adjoint` holds X as it enters the chunk and is the running store of it. `sums` (b k, chunk, R, c) takes the sums
    over time, R = N rows of Ā, then D̄ and the bias, then B̄ and C̄ where these are constant; it has to come zeroed.
    With z, order must be absent.
    """
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    chunk = (pid // n_ctiles) % n_chunks
    bk = pid // n_ctiles // n_chunks
    b = (bk // K).to(tl.int64)
    k = bk % K
    T: tl.constexpr = 8
    R: tl.constexpr = N + 2 + (N if CONST_B else 0) + (N if CONST_C else 0)
    channels = cv * V
    oc = pc * BC + tl.arange(0, BC)
    ot = tl.arange(0, T)
    ot_c = ot[:, None]
    select = tl.where((tl.arange(0, 32) // 4)[None, :] == ot_c, 1.0, 0.0)
    if WHOLE:
        mc = oc >= 0
    else:
        mc = oc < channels
    kc = k * channels + oc
    bias_c = tl.zeros([BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    D_c = tl.zeros([BC], tl.float32)
    if HAS_D:
        D_c = tl.load(D + kc, mask=mc, other=0.0)
    sum_D = tl.zeros([BC], tl.float32)
    sum_bias = tl.zeros([BC], tl.float32)
    u_p = u + (b * u_b + k * u_k) * V + across(oc, u_c, UNIT)[None, :]
    d_p = delta + (b * d_b + k * d_k) * V + across(oc, d_c, UNIT)[None, :]
    g_p = grad + (b * g_b + k * g_k) * V + across(oc, g_c, UNIT)[None, :]
    z_p = z + (b * z_b + k * z_k) * V + across(oc, z_c, UNIT)[None, :]
    du_p = du + (b * du_b + k * du_k) * V + across(oc, du_c, UNIT)[None, :]
    dd_p = ddelta + (b * dd_b + k * dd_k) * V + across(oc, dd_c, UNIT)[None, :]
    dz_p = dz + (b * dz_b + k * dz_k) * V + across(oc, dz_c, UNIT)[None, :]
    order_p = order + b * order_b + k * length
    cols_p = cols + bk.to(tl.int64) * (2 * NP) * padded
    part_p = partial + (pc * n_bk + bk).to(tl.int64) * (2 * NP) * padded
    at_chunk = bk.to(tl.int64) * n_chunks + chunk
    X_p = adjoint + at_chunk * NP * channels + oc
    sum_p = sums + at_chunk * R * channels + oc
    a_p = At + k * NP * channels + oc

    u_first = (u + (b * u_b + k * u_k) * V + pc * BC).to(tl.int64)
    d_first = (delta + (b * d_b + k * d_k) * V + pc * BC).to(tl.int64)
    g_first = (grad + (b * g_b + k * g_k) * V + pc * BC).to(tl.int64)
    z_first = (z + (b * z_b + k * z_k) * V + pc * BC).to(tl.int64)
    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    begin64 = begin.to(tl.int64)
    tiles = tl.cdiv(end - begin, T)
    ALL: tl.constexpr = FULL and WHOLE
    ALL_P: tl.constexpr = ALL and (EACH or not ORDER)
    ALL_U: tl.constexpr = ALL_P if U_TOKENS else ALL
    ALL_D: tl.constexpr = ALL_P if D_TOKENS else ALL
    t = begin + (tiles - 1) * T + ot
    p_next = row_numbers(order_p, t, t < end, ORDER, FULL)
    for i in range(0, tiles):
        t0 = begin + (tiles - 1 - i) * T
        now = begin64 + (tiles - 1 - i) * T
        p = p_next
        t = tl.maximum(t0 - T, begin) + ot
        p_next = row_numbers(order_p, t, t < end, ORDER, FULL)
        inside = (t0 + ot < end)[:, None]
        steps = inside & mc[None, :]
        tokens = (steps & (p >= 0)[:, None]) if ORDER else steps
        u_at = row_pointers(u_p, p[:, None], now, ot_c, one, u_s, UNIT, U_TOKENS)
        d_at = row_pointers(d_p, p[:, None], now, ot_c, one, d_s, UNIT, D_TOKENS)
        g_at = row_pointers(g_p, p[:, None], now, ot_c, one, g_s, UNIT, ORDER)
        m_u = tokens if U_TOKENS else steps
        m_d = tokens if D_TOKENS else steps
        u_t = fetch(u_at, m_u, ALL_U).to(tl.float32)
        yb = fetch(g_at, tokens, ALL_P).to(tl.float32)
        dt = fetch(d_at, m_d, ALL_D).to(tl.float32) + bias_c[None, :]
        if HAS_Z:
            z_at = row_pointers(z_p, p[:, None], now, ot_c, one, z_s, UNIT, False)
            z_t = fetch(z_at, steps, ALL).to(tl.float32)
            yb = yb * z_t * sigmoid(z_t)
            y_t = tl.zeros([T, BC], tl.float32)
        s = step_sizes(dt, 0.0, inside, SOFTPLUS, PRECISE, FULL)
        su = s * u_t
        sum_gB = tl.zeros([T, BC], tl.float32)
        sum_gqA = tl.zeros([T, BC], tl.float32)
        h_p = saved + (bk.to(tl.int64) * n_tiles + t0 // T) * NP * channels + oc
        h_next = tl.load(h_p, mask=mc, other=0.0)
        X_next = tl.load(X_p, mask=mc, other=0.0)
        a_next = tl.load(a_p, mask=mc, other=0.0)
        if NEAR > 0 and UNIT:
            prefetch_tile(
                u_first, d_first, g_first, z_first, order_p, t0 - T, begin, channels - pc * BC, u_s, d_s, g_s, z_s,
                u.dtype.element_ty.primitive_bitwidth // 8, delta.dtype.element_ty.primitive_bitwidth // 8,
                grad.dtype.element_ty.primitive_bitwidth // 8, z.dtype.element_ty.primitive_bitwidth // 8,
                BC, U_TOKENS, D_TOKENS, ORDER, HAS_Z, NEAR,
            )  # fmt: skip
            prefetch_states(
                saved + (bk.to(tl.int64) * n_tiles + (t0 // T - 1)) * NP * channels + pc * BC, channels,
                channels - pc * BC, cols_p + now - T, padded, t0 > begin, NP, BC, NEAR,
            )  # fmt: skip
        row = cols_p + now
        part = part_p + now
        if not CONST_B:
            B_next = tl.load(row + ot)
        if not CONST_C:
            C_next = tl.load(row + NP * padded + ot)
        for n in tl.range(0, N, loop_unroll_factor=UNROLL):
            h = h_next
            X = X_next
            a_c = a_next[None, :]
            if CONST_B:
                B_n = tl.load(Bc + kc * bc_c + n * bc_n, mask=mc, other=0.0).to(tl.float32)
                B_t = tl.broadcast_to(B_n[None, :], [T, BC])
            else:
                B_t = tl.broadcast_to(B_next[:, None], [T, BC])
            if CONST_C:
                C_n = tl.load(Cc + kc * cc_c + n * cc_n, mask=mc, other=0.0).to(tl.float32)
                C_t = tl.broadcast_to(C_n[None, :], [T, BC])
            else:
                C_t = tl.broadcast_to(C_next[:, None], [T, BC])
            # the next state's operands go out before this one's work
            m = tl.minimum(n + 1, N - 1)
            h_next = tl.load(h_p + m * channels, mask=mc, other=0.0)
            X_next = tl.load(X_p + m * channels, mask=mc, other=0.0)
            a_next = tl.load(a_p + m * channels, mask=mc, other=0.0)
            if not CONST_B:
                B_next = tl.load(row + m * padded + ot)
            if not CONST_C:
                C_next = tl.load(row + (NP + m) * padded + ot)
            a = ex2(s * a_c)
            q = a  # becomes a h(before)
            h_t = a
            for j in tl.static_range(T):
                q_row = pick(a, j, ot_c) * h
                h = q_row + pick(su, j, ot_c) * pick(B_t, j, ot_c)
                q = tl.where(ot_c == j, q_row[None, :], q)
                h_t = tl.where(ot_c == j, h[None, :], h_t)
            g = a
            for j in tl.static_range(T):
                g_row = pick(yb, T - 1 - j, ot_c) * pick(C_t, T - 1 - j, ot_c) + X
                X = pick(a, T - 1 - j, ot_c) * g_row
                g = tl.where(ot_c == T - 1 - j, g_row[None, :], g)
            gq = g * q
            sum_gB += g * B_t
            sum_gqA += gq * a_c
            if HAS_Z:
                y_t += h_t * C_t
            tl.store(X_p + n * channels, X, mask=mc)
            tl.atomic_add(sum_p + n * channels, tl.sum(s * gq, 0), mask=mc, sem="relaxed")  # a place of its own
            if CONST_B or CONST_C:
                if CONST_B:
                    tl.atomic_add(sum_p + (N + 2 + n) * channels, tl.sum(su * g, 0), mask=mc, sem="relaxed")
                else:
                    tl.store(part + n * padded + ot, tl.sum(su * g, 1))
                if CONST_C:
                    tl.atomic_add(sum_p + (R - N + n) * channels, tl.sum(yb * h_t, 0), mask=mc, sem="relaxed")
                else:
                    tl.store(part + (NP + n) * padded + ot, tl.sum(yb * h_t, 1))
            else:
                store_channel_sums(
                    part + n * padded, su * g, part + (NP + n) * padded, yb * h_t, select, ot, BC, FAST, EXACT
                )
        if RELOAD:  # what the loop over states does not need is read again rather than kept in registers across it
            u_t = fetch(u_at, m_u, ALL_U).to(tl.float32)
            if SOFTPLUS:
                dt = fetch(d_at, m_d, ALL_D).to(tl.float32) + bias_c[None, :]
            if HAS_Z:
                z_t = fetch(z_at, steps, ALL).to(tl.float32)
        dd = u_t * sum_gB + sum_gqA * LN2
        if SOFTPLUS:
            e = ex2(dt * LOG2E)
            dd *= tl.where(dt > 20.0, 1.0, e * rcp(1.0 + e))
        if not FULL:
            dd = tl.where(inside, dd, 0.0)
        if HAS_Z:
            sz = sigmoid(z_t)
            y_t += D_c[None, :] * u_t
            dout = fetch(g_at, tokens, ALL_P).to(tl.float32)
            put(row_pointers(dz_p, p[:, None], now, ot_c, one, dz_s, UNIT, False),
                dout * y_t * sz * (1.0 + z_t * (1.0 - sz)), steps, ALL)  # fmt: skip
        put(row_pointers(du_p, p[:, None], now, ot_c, one, du_s, UNIT, False),
            D_c[None, :] * yb + s * sum_gB, steps, ALL)  # fmt: skip
        put(row_pointers(dd_p, p[:, None], now, ot_c, one, dd_s, UNIT, DD_TOKENS), dd,
            tokens if DD_TOKENS else steps, ALL_P if DD_TOKENS else ALL)  # fmt: skip
        sum_D += tl.sum(yb * u_t, 0)
        sum_bias += tl.sum(dd, 0)
    tl.store(sum_p + N * channels, sum_D, mask=mc)
    tl.store(sum_p + (N + 1) * channels, sum_bias, mask=mc)


@triton.jit
def finish(
    partial, sums, dB, dC, dA, dD, dbias, dBc, dCc, order,
    length, padded, channels, n_rows, n_parts, part_stride, n_bk, n_tiles, n_ctiles, order_b,
    b_b, b_k, b_t, b_n, c_b, c_k, c_t, c_n, a_c, a_n, bc_c, bc_n, cc_c, cc_n,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BT: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, TOKENS: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One launch for all final sums: B̄ and C̄ over the channel tiles, Ā, D̄, bias (constant B̄, C̄) over (b, chunk)."""
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    R: tl.constexpr = N + 2 + (N if CONST_B else 0) + (N if CONST_C else 0)
    if pid < n_tiles * n_bk:
        bk = pid // n_tiles
        b = (bk // K).to(tl.int64)
        k = bk % K
        t = (pid % n_tiles) * BT + tl.arange(0, BT)
        inside = t < length
        if TOKENS:  # only where an order visits every token once
            row = tl.load(order + b * order_b + k * length + t, mask=inside, other=-1)
            inside = inside & (row >= 0)
            row = row.to(tl.int64)
        else:
            row = t.to(tl.int64)
        both = tl.arange(0, 2 * NP)  # B̄ above C̄, as in memory
        src = partial + (bk.to(tl.int64) * (2 * NP) + both[:, None]) * padded + t[None, :]
        acc = tl.zeros([2 * NP, BT], tl.float32)
        for _ in tl.range(0, n_parts, loop_unroll_factor=4):
            acc += tl.load(src, mask=(t < length)[None, :] & (both >= 0)[:, None], other=0.0)
            src += part_stride
        n = (both % NP)[:, None]
        mask = (n < N) & inside[None, :]
        if not CONST_B:
            tl.store(dB + b * b_b + k * b_k + row[None, :] * b_t + n * b_n, acc, mask=mask & (both < NP)[:, None])
        if not CONST_C:
            tl.store(dC + b * c_b + k * c_k + row[None, :] * c_t + n * c_n, acc, mask=mask & (both >= NP)[:, None])
    else:
        place = pid - n_tiles * n_bk
        oc = (place % n_ctiles) * BC + tl.arange(0, BC)
        j = (place // n_ctiles) % R  # which row of the sums
        kr = place // n_ctiles // R
        mc = oc < channels
        chunks = n_rows // n_bk
        per_k = n_rows // K
        rows_sum = tl.zeros([BR, BC], tl.float32)
        for i in range(0, per_k, BR):
            r = i + tl.arange(0, BR)
            at = ((r // chunks) * K + kr) * chunks + r % chunks
            rows_sum += tl.load(sums + (at.to(tl.int64) * R + j)[:, None] * channels + oc[None, :],
                           mask=(r < per_k)[:, None] & mc[None, :], other=0.0)  # fmt: skip
        total = tl.sum(rows_sum, 0)
        kc = (kr * channels + oc).to(tl.int64)
        if j < N:
            tl.store(dA + kc * a_c + j * a_n, total, mask=mc)
        elif j == N:
            if HAS_D:
                tl.store(dD + kc, total, mask=mc)
        elif j == N + 1:
            if HAS_BIAS:
                tl.store(dbias + kc, total, mask=mc)
        else:
            if CONST_B:
                if j < N + 2 + N:
                    tl.store(dBc + kc * bc_c + (j - N - 2) * bc_n, total, mask=mc)
            if CONST_C:
                if j >= R - N:
                    tl.store(dCc + kc * cc_c + (j - (R - N)) * cc_n, total, mask=mc)
