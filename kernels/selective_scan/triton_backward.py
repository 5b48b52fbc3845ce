"""Backward kernels of the selective scan, channels-last; names and layouts as in triton_forward.

With g the gradient of the state after a step and X = a g what it hands to the step before:
g = C ȳ + X(next), s̄ = Σ g (u B + A a h(before)), ū = D ȳ + s Σ g B, Ā = Σ s g a h(before), B̄ = Σ_c s u g, C̄ = Σ_c ȳ h.
Sums over channels leave a kernel as one partial sum a channel tile, sums over time as one a chunk; `finish` adds them
up. No two programs write to one place: no race, and the same bits every time.
"""

import triton
import triton.language as tl

from mamba_vision.kernels.selective_scan.triton_forward import load_row_numbers
from mamba_vision.kernels.triton_common import (
    LN2, LOG2E, PTX, compose, ex2, lane_sums, pick, rcp, sigmoid, softplus, summed_row,
)  # fmt: skip


@triton.jit(do_not_specialize=["d_b", "d_k", "d_s", "z_b", "z_k", "z_s", "g_b", "g_k", "g_s"])
def adjoint_of_chunks(
    delta, rows, At, Cc, bias, z, grad, ends, decays, order,
    length, padded, channels, n_ctiles, n_chunks, order_b, cc_c, cc_n,
    d_b, d_k, d_s, d_c, z_b, z_k, z_s, z_c, g_b, g_k, g_s, g_c,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BC: tl.constexpr, T: tl.constexpr, V: tl.constexpr,
    CHUNK: tl.constexpr, WHOLE: tl.constexpr, UNIT: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr, D_TOKENS: tl.constexpr,
):  # fmt: skip
    """Every chunk's adjoint from zero: the X that it hands to the chunk before, and its sum of step sizes."""
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    chunk = (pid // n_ctiles) % n_chunks
    bk = pid // n_ctiles // n_chunks
    b = (bk // K).to(tl.int64)
    k = bk % K
    oc = pc * BC + tl.arange(0, BC)
    on = tl.arange(0, NP)
    ot = tl.arange(0, T)
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
    if UNIT:
        od = oc
        oz = oc
        og = oc
    else:
        od = oc.to(tl.int64) * d_c
        oz = oc.to(tl.int64) * z_c
        og = oc.to(tl.int64) * g_c
    d_p = delta + (b * d_b + k * d_k) * V + od[None, :]
    if HAS_Z:
        z_p = z + (b * z_b + k * z_k) * V + oz[None, :]
    g_p = grad + (b * g_b + k * g_k) * V + og[None, :]
    order_p = order + b * order_b + k * length
    row_p = rows + bk.to(tl.int64) * padded * (2 * NP) + NP

    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    tiles = tl.cdiv(end - begin, T)
    X = tl.zeros([NP, BC], tl.float32)
    total = tl.zeros([BC], tl.float32)
    t = begin + (tiles - 1) * T + ot
    inside = t < end
    p = load_row_numbers(order_p, t, inside, ORDER)
    p_next = load_row_numbers(order_p, t - T, t - T >= begin, ORDER)
    m_g = ((inside & (p >= 0)) if ORDER else inside)[:, None] & mc[None, :]
    m_d = m_g if D_TOKENS else (inside[:, None] & mc[None, :])
    d_next = tl.load(d_p + (p if D_TOKENS else t).to(tl.int64)[:, None] * d_s * V, mask=m_d, other=0.0)
    g_next = tl.load(g_p + p.to(tl.int64)[:, None] * g_s * V, mask=m_g, other=0.0)
    if HAS_Z:
        z_next = tl.load(z_p + p.to(tl.int64)[:, None] * z_s * V, mask=m_g, other=0.0)
    for i in range(0, tiles):
        t0 = begin + (tiles - 1 - i) * T
        t = t0 + ot
        inside = t < end
        s = d_next.to(tl.float32) + bias_c[None, :]
        yb = g_next.to(tl.float32)
        if HAS_Z:
            z_tc = z_next.to(tl.float32)
        p = p_next
        ahead = t >= begin + T
        m_g = ((ahead & (p >= 0)) if ORDER else ahead)[:, None] & mc[None, :]
        m_d = m_g if D_TOKENS else (ahead[:, None] & mc[None, :])
        d_next = tl.load(d_p + (p if D_TOKENS else t - T).to(tl.int64)[:, None] * d_s * V, mask=m_d, other=0.0)
        g_next = tl.load(g_p + p.to(tl.int64)[:, None] * g_s * V, mask=m_g, other=0.0)
        if HAS_Z:
            z_next = tl.load(z_p + p.to(tl.int64)[:, None] * z_s * V, mask=m_g, other=0.0)
        p_next = load_row_numbers(order_p, t - 2 * T, t >= begin + 2 * T, ORDER)
        if SOFTPLUS:
            s = softplus(s, ex2(s * LOG2E), PRECISE)
        s = tl.where(inside[:, None], s, 0.0)
        total += tl.sum(s, 0)
        if HAS_Z:
            yb = yb * z_tc * sigmoid(z_tc)
        for j in tl.static_range(T):
            yb_c = pick(yb, T - 1 - j, ot[:, None])[None, :]
            if CONST_C:
                g = X + yb_c * C_nc
            else:
                g = X + yb_c * tl.load(row_p + (t0 + T - 1 - j) * (2 * NP) + on)[:, None]
            X = ex2(pick(s, T - 1 - j, ot[:, None])[None, :] * a_nc) * g
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


@triton.jit(do_not_specialize=["u_b", "u_k", "u_s", "d_b", "d_k", "d_s", "z_b", "z_k", "z_s", "g_b", "g_k", "g_s",
                               "du_b", "du_k", "du_s", "dd_b", "dd_k", "dd_s", "dz_b", "dz_k", "dz_s"])  # fmt: skip
def backward_states(
    u, delta, cols, At, Bc, Cc, D, bias, z, grad, saved, adjoint, du, ddelta, dz, sums, partial, order,
    length, padded, channels, n_ctiles, n_chunks, n_tiles, n_bk, order_b, bc_c, bc_n, cc_c, cc_n,
    u_b, u_k, u_s, u_c, d_b, d_k, d_s, d_c, z_b, z_k, z_s, z_c, g_b, g_k, g_s, g_c,
    du_b, du_k, du_s, du_c, dd_b, dd_k, dd_s, dd_c, dz_b, dz_k, dz_s, dz_c,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BC: tl.constexpr, V: tl.constexpr, CHUNK: tl.constexpr,
    WHOLE: tl.constexpr, UNIT: tl.constexpr, HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr,
    D_TOKENS: tl.constexpr, DD_TOKENS: tl.constexpr, UNROLL: tl.constexpr, FAST: tl.constexpr, RELOAD: tl.constexpr,
):  # fmt: skip
    """Many states: tiles [8, BC] from the last to the first, one state at a time, its states rebuilt from `saved`.

    `adjoint` holds X as it enters the chunk and is the running store of it. `sums` (b k, chunk, R, c) takes the sums
    over time, R = N rows of Ā, then D̄ and the bias, then B̄ and C̄ where these are constant; it and nothing else has
    to come zeroed.
    """
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    chunk = (pid // n_ctiles) % n_chunks
    bk = pid // n_ctiles // n_chunks
    b = (bk // K).to(tl.int64)
    k = bk % K
    T: tl.constexpr = 8
    R: tl.constexpr = N + 2 + (N if CONST_B else 0) + (N if CONST_C else 0)
    oc = pc * BC + tl.arange(0, BC)
    ot = tl.arange(0, T)
    rows = ot[:, None]
    select = tl.where((tl.arange(0, 32) // 4)[None, :] == rows, 1.0, 0.0)
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
    if UNIT:
        ou = oc
        od = oc
        oz = oc
        og = oc
        odu = oc
        odd = oc
        odz = oc
    else:
        ou = oc.to(tl.int64) * u_c
        od = oc.to(tl.int64) * d_c
        oz = oc.to(tl.int64) * z_c
        og = oc.to(tl.int64) * g_c
        odu = oc.to(tl.int64) * du_c
        odd = oc.to(tl.int64) * dd_c
        odz = oc.to(tl.int64) * dz_c
    u_p = u + (b * u_b + k * u_k) * V + ou[None, :]
    d_p = delta + (b * d_b + k * d_k) * V + od[None, :]
    g_p = grad + (b * g_b + k * g_k) * V + og[None, :]
    du_p = du + (b * du_b + k * du_k) * V + odu[None, :]
    dd_p = ddelta + (b * dd_b + k * dd_k) * V + odd[None, :]
    if HAS_Z:
        z_p = z + (b * z_b + k * z_k) * V + oz[None, :]
        dz_p = dz + (b * dz_b + k * dz_k) * V + odz[None, :]
    order_p = order + b * order_b + k * length
    cols_p = cols + bk.to(tl.int64) * (2 * NP) * padded
    part_p = partial + (pc * n_bk + bk).to(tl.int64) * (2 * NP) * padded
    at_chunk = bk.to(tl.int64) * n_chunks + chunk
    X_p = adjoint + at_chunk * NP * channels + oc
    sum_p = sums + at_chunk * R * channels + oc
    a_p = At + k * NP * channels + oc

    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    tiles = tl.cdiv(end - begin, T)
    t = begin + (tiles - 1) * T + ot
    p_next = load_row_numbers(order_p, t, t < end, ORDER)
    for i in range(0, tiles):
        t0 = begin + (tiles - 1 - i) * T
        t = t0 + ot
        inside = t < end
        p = p_next
        p_next = load_row_numbers(order_p, t - T, t - T >= begin, ORDER)
        steps = inside[:, None] & mc[None, :]
        tokens = (steps & (p >= 0)[:, None]) if ORDER else steps
        at_u = p.to(tl.int64)[:, None]
        at_t = t.to(tl.int64)[:, None]
        at_d = at_u if D_TOKENS else at_t
        m_d = tokens if D_TOKENS else steps
        u_t = tl.load(u_p + at_u * u_s * V, mask=tokens, other=0.0).to(tl.float32)
        yb = tl.load(g_p + at_u * g_s * V, mask=tokens, other=0.0).to(tl.float32)
        dt = tl.load(d_p + at_d * d_s * V, mask=m_d, other=0.0).to(tl.float32) + bias_c[None, :]
        if HAS_Z:
            z_t = tl.load(z_p + at_u * z_s * V, mask=tokens, other=0.0).to(tl.float32)
            yb = yb * z_t * sigmoid(z_t)
            y_t = tl.zeros([T, BC], tl.float32)
        s = dt
        if SOFTPLUS:
            s = softplus(dt, ex2(dt * LOG2E), PRECISE)
        s = tl.where(inside[:, None], s, 0.0)
        su = s * u_t
        sum_gB = tl.zeros([T, BC], tl.float32)
        sum_gqA = tl.zeros([T, BC], tl.float32)
        h_p = saved + (bk.to(tl.int64) * n_tiles + t0 // T) * NP * channels + oc
        h_next = tl.load(h_p, mask=mc, other=0.0)
        X_next = tl.load(X_p, mask=mc, other=0.0)
        a_next = tl.load(a_p, mask=mc, other=0.0)
        if not CONST_B:
            B_next = tl.load(cols_p + t)
        if not CONST_C:
            C_next = tl.load(cols_p + NP * padded + t)
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
                B_next = tl.load(cols_p + m * padded + t)
            if not CONST_C:
                C_next = tl.load(cols_p + (NP + m) * padded + t)
            a = ex2(s * a_c)
            q = a  # becomes a h(before)
            h_t = a
            for j in tl.static_range(T):
                q_c = pick(a, j, rows) * h
                h = q_c + pick(su, j, rows) * pick(B_t, j, rows)
                q = tl.where(rows == j, q_c[None, :], q)
                h_t = tl.where(rows == j, h[None, :], h_t)
            g = a
            for j in tl.static_range(T):
                g_c_t = pick(yb, T - 1 - j, rows) * pick(C_t, T - 1 - j, rows) + X
                X = pick(a, T - 1 - j, rows) * g_c_t
                g = tl.where(rows == T - 1 - j, g_c_t[None, :], g)
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
                    tl.store(part_p + n * padded + t, tl.sum(su * g, 1))
                if CONST_C:
                    tl.atomic_add(sum_p + (R - N + n) * channels, tl.sum(yb * h_t, 0), mask=mc, sem="relaxed")
                else:
                    tl.store(part_p + (NP + n) * padded + t, tl.sum(yb * h_t, 1))
            else:
                store_channel_sums(
                    part_p + n * padded + t0, su * g, part_p + (NP + n) * padded + t0, yb * h_t, select, ot,
                    BC, FAST, PRECISE,
                )  # fmt: skip
        if RELOAD:  # what the loop over states does not need is read again rather than kept in registers across it
            u_t = tl.load(u_p + at_u * u_s * V, mask=tokens, other=0.0).to(tl.float32)
            if SOFTPLUS:
                dt = tl.load(d_p + at_d * d_s * V, mask=m_d, other=0.0).to(tl.float32) + bias_c[None, :]
            if HAS_Z:
                z_t = tl.load(z_p + at_u * z_s * V, mask=tokens, other=0.0).to(tl.float32)
        dd = u_t * sum_gB + sum_gqA * LN2
        if SOFTPLUS:
            e = ex2(dt * LOG2E)
            dd *= tl.where(dt > 20.0, 1.0, e * rcp(1.0 + e))
        dd = tl.where(inside[:, None], dd, 0.0)
        if HAS_Z:
            sz = sigmoid(z_t)
            y_t += D_c[None, :] * u_t
            dout = tl.load(g_p + at_u * g_s * V, mask=tokens, other=0.0).to(tl.float32)
            tl.store(dz_p + at_u * dz_s * V, dout * y_t * sz * (1.0 + z_t * (1.0 - sz)), mask=tokens)
        tl.store(du_p + at_t * du_s * V, D_c[None, :] * yb + s * sum_gB, mask=steps)
        tl.store(dd_p + (at_u if DD_TOKENS else at_t) * dd_s * V, dd, mask=tokens if DD_TOKENS else steps)
        sum_D += tl.sum(yb * u_t, 0)
        sum_bias += tl.sum(dd, 0)
    tl.store(sum_p + N * channels, sum_D, mask=mc)
    tl.store(sum_p + (N + 1) * channels, sum_bias, mask=mc)


@triton.jit(do_not_specialize=["u_b", "u_k", "u_s", "d_b", "d_k", "d_s", "z_b", "z_k", "z_s", "g_b", "g_k", "g_s",
                               "du_b", "du_k", "du_s", "dd_b", "dd_k", "dd_s", "dz_b", "dz_k", "dz_s"])  # fmt: skip
def backward_one_state(
    u, delta, cols, At, Bc, Cc, D, bias, z, grad, grad_last, saved, du, ddelta, dz, sums, partial, dinitial, order,
    length, padded, channels, n_ctiles, n_tiles, n_bk, order_b, bc_c, cc_c,
    u_b, u_k, u_s, u_c, d_b, d_k, d_s, d_c, z_b, z_k, z_s, z_c, g_b, g_k, g_s, g_c,
    du_b, du_k, du_s, du_c, dd_b, dd_k, dd_s, dd_c, dz_b, dz_k, dz_s, dz_c,
    K: tl.constexpr, BC: tl.constexpr, T: tl.constexpr, W: tl.constexpr, V: tl.constexpr,
    WHOLE: tl.constexpr, UNIT: tl.constexpr, HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_LAST: tl.constexpr, INITIAL: tl.constexpr, SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr,
    CONST_B: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr, D_TOKENS: tl.constexpr, DD_TOKENS: tl.constexpr,
    FAST: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """One state: W warps on W runs of T = 8 steps, [T, W, BC]; warp 0 has the last run, so X moves from warp to warp."""
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    bk = pid // n_ctiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    R: tl.constexpr = 3 + (1 if CONST_B else 0) + (1 if CONST_C else 0)
    oc = pc * BC + tl.arange(0, BC)
    ow = tl.arange(0, W)
    ot = tl.arange(0, T)
    rows = ot[:, None, None]
    run = (W - 1) - ow
    step = run[None, :] * T + ot[:, None]
    select = tl.zeros([8, W, 32], tl.float32) + tl.where((tl.arange(0, 32) // 4)[None, None, :] == rows, 1.0, 0.0)
    if WHOLE:
        mc = oc >= 0
    else:
        mc = oc < channels
    mc3 = mc[None, None, :]
    kc = k * channels + oc
    own = b * K * channels + kc
    bias_c = tl.zeros([BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    D_c = tl.zeros([BC], tl.float32)
    if HAS_D:
        D_c = tl.load(D + kc, mask=mc, other=0.0)
    a_c = tl.load(At + kc, mask=mc, other=0.0)
    if CONST_B:
        B_c = tl.load(Bc + kc * bc_c, mask=mc, other=0.0).to(tl.float32)
    if CONST_C:
        C_c = tl.load(Cc + kc * cc_c, mask=mc, other=0.0).to(tl.float32)
    X_in = tl.zeros([W, BC], tl.float32)
    if HAS_LAST:
        X_in += tl.load(grad_last + own, mask=mc, other=0.0)[None, :]
    sum_A = tl.zeros([W, BC], tl.float32)
    sum_D = tl.zeros([W, BC], tl.float32)
    sum_bias = tl.zeros([W, BC], tl.float32)
    sum_B = tl.zeros([W, BC], tl.float32)
    sum_C = tl.zeros([W, BC], tl.float32)
    if UNIT:
        ou = oc
        od = oc
        oz = oc
        og = oc
        odu = oc
        odd = oc
        odz = oc
    else:
        ou = oc.to(tl.int64) * u_c
        od = oc.to(tl.int64) * d_c
        oz = oc.to(tl.int64) * z_c
        og = oc.to(tl.int64) * g_c
        odu = oc.to(tl.int64) * du_c
        odd = oc.to(tl.int64) * dd_c
        odz = oc.to(tl.int64) * dz_c
    u_p = u + (b * u_b + k * u_k) * V + ou[None, None, :]
    d_p = delta + (b * d_b + k * d_k) * V + od[None, None, :]
    g_p = grad + (b * g_b + k * g_k) * V + og[None, None, :]
    du_p = du + (b * du_b + k * du_k) * V + odu[None, None, :]
    dd_p = ddelta + (b * dd_b + k * dd_k) * V + odd[None, None, :]
    if HAS_Z:
        z_p = z + (b * z_b + k * z_k) * V + oz[None, None, :]
        dz_p = dz + (b * dz_b + k * dz_k) * V + odz[None, None, :]
    order_p = order + b * order_b + k * length
    B_p = cols + bk.to(tl.int64) * 2 * padded
    C_p = B_p + padded
    dB_p = partial + (pc * n_bk + bk).to(tl.int64) * 2 * padded
    dC_p = dB_p + padded
    h_p = saved + bk.to(tl.int64) * n_tiles * channels + oc[None, :]

    tiles = tl.cdiv(length, T * W)
    t = (tiles - 1) * (T * W) + step
    p = load_row_numbers(order_p, t, t < length, ORDER)
    p_next = load_row_numbers(order_p, t - T * W, t >= T * W, ORDER)
    steps = (t < length)[:, :, None] & mc3
    tokens = (steps & (p >= 0)[:, :, None]) if ORDER else steps
    at_u = p.to(tl.int64)[:, :, None]
    at_d = at_u if D_TOKENS else t.to(tl.int64)[:, :, None]
    u_next = tl.load(u_p + at_u * u_s * V, mask=tokens, other=0.0)
    g_next = tl.load(g_p + at_u * g_s * V, mask=tokens, other=0.0)
    d_next = tl.load(d_p + at_d * d_s * V, mask=tokens if D_TOKENS else steps, other=0.0)
    for i in range(0, tiles):
        t0 = (tiles - 1 - i) * (T * W)
        t = t0 + step
        inside = (t < length)[:, :, None]
        steps = inside & mc3
        tokens = (steps & (p >= 0)[:, :, None]) if ORDER else steps
        at_u = p.to(tl.int64)[:, :, None]
        at_t = t.to(tl.int64)[:, :, None]
        h = tl.load(h_p + (t0 // T + run).to(tl.int64)[:, None] * channels,
                    mask=(t0 // T + run < n_tiles)[:, None] & mc[None, :], other=0.0)  # fmt: skip
        if CONST_B:
            B_t = tl.broadcast_to(B_c[None, None, :], [T, W, BC])
        else:
            B_t = tl.broadcast_to(tl.load(B_p + t)[:, :, None], [T, W, BC])
        if CONST_C:
            C_t = tl.broadcast_to(C_c[None, None, :], [T, W, BC])
        else:
            C_t = tl.broadcast_to(tl.load(C_p + t)[:, :, None], [T, W, BC])
        u_t = u_next.to(tl.float32)
        dout = g_next.to(tl.float32)
        dt = d_next.to(tl.float32) + bias_c[None, None, :]
        if HAS_Z:
            z_t = tl.load(z_p + at_u * z_s * V, mask=tokens, other=0.0).to(tl.float32)
        if AHEAD:
            p = p_next
            steps_n = (t >= T * W)[:, :, None] & mc3
            tokens_n = (steps_n & (p >= 0)[:, :, None]) if ORDER else steps_n
            at_un = p.to(tl.int64)[:, :, None]
            at_dn = at_un if D_TOKENS else (t - T * W).to(tl.int64)[:, :, None]
            u_next = tl.load(u_p + at_un * u_s * V, mask=tokens_n, other=0.0)
            g_next = tl.load(g_p + at_un * g_s * V, mask=tokens_n, other=0.0)
            d_next = tl.load(d_p + at_dn * d_s * V, mask=tokens_n if D_TOKENS else steps_n, other=0.0)
            p_next = load_row_numbers(order_p, t - 2 * T * W, t >= 2 * T * W, ORDER)
        s = dt
        if SOFTPLUS:
            e = ex2(dt * LOG2E)
            s = softplus(dt, e, PRECISE)
        s = tl.where(inside, s, 0.0)
        yb = dout
        if HAS_Z:
            sz = sigmoid(z_t)
            yb = dout * z_t * sz
        a = ex2(s * a_c[None, None, :])
        su = s * u_t
        if W > 1:  # what each run adds by itself, then what enters it
            X = tl.zeros([W, BC], tl.float32)
            for j in tl.static_range(T):
                X = pick(a, T - 1 - j, rows) * (pick(yb, T - 1 - j, rows) * pick(C_t, T - 1 - j, rows) + X)
            decay = ex2(tl.sum(s, 0) * a_c[None, :])
            X = tl.where(ow[:, None] == 0, decay * X_in + X, X)
            _, X = tl.associative_scan((decay, X), 0, compose)
            before = tl.gather(X, (ow[:, None] + (W - 1)) % W + tl.zeros([W, BC], tl.int32), 0)
            X = tl.where(ow[:, None] == 0, X_in, before)
        else:
            X = X_in
        g = a
        for j in tl.static_range(T):
            g_row = pick(yb, T - 1 - j, rows) * pick(C_t, T - 1 - j, rows) + X
            X = pick(a, T - 1 - j, rows) * g_row
            g = tl.where(rows == T - 1 - j, g_row[None, :, :], g)
        if W > 1:
            X_in = before  # row 0 counts: what leaves the first run enters the last run of the tile before
        else:
            X_in = X
        q = a
        h_t = a
        for j in tl.static_range(T):
            q_row = pick(a, j, rows) * h
            h = q_row + pick(su, j, rows) * pick(B_t, j, rows)
            q = tl.where(rows == j, q_row[None, :, :], q)
            h_t = tl.where(rows == j, h[None, :, :], h_t)
        gq = g * q
        gB = g * B_t
        dd = u_t * gB + gq * (a_c[None, None, :] * LN2)
        if SOFTPLUS:
            dd *= tl.where(dt > 20.0, 1.0, e * rcp(1.0 + e))
        dd = tl.where(inside, dd, 0.0)
        x = su * g
        y = yb * h_t
        sum_A += tl.sum(s * gq, 0)
        sum_D += tl.sum(yb * u_t, 0)
        sum_bias += tl.sum(dd, 0)
        if CONST_B:
            sum_B += tl.sum(x, 0)
        if CONST_C:
            sum_C += tl.sum(y, 0)
        if not (CONST_B and CONST_C):
            if PTX and FAST:
                lane = tl.arange(0, 32)
                if BC == 64:
                    x = tl.sum(tl.reshape(x, [8, W, 32, 2]), 3)
                    y = tl.sum(tl.reshape(y, [8, W, 32, 2]), 3)
                total = pick(lane_sums(x, y, select, PRECISE), 0, rows)  # [W, 32]
                v = summed_row(lane)[None, :]
                tl.store(tl.where(v < 8, dB_p, dC_p) + t0 + run[:, None] * T + v % 8, total,
                         mask=((lane // 4) % 2 == 0)[None, :] & (run[:, None] >= 0))  # fmt: skip
            else:
                if not CONST_B:
                    tl.store(dB_p + t, tl.sum(x, 2))
                if not CONST_C:
                    tl.store(dC_p + t, tl.sum(y, 2))
        if HAS_Z:
            y_t = h_t * C_t + D_c[None, None, :] * u_t
            tl.store(dz_p + at_u * dz_s * V, dout * y_t * sz * (1.0 + z_t * (1.0 - sz)), mask=tokens)
        tl.store(du_p + at_t * du_s * V, D_c[None, None, :] * yb + s * gB, mask=steps)
        tl.store(dd_p + (at_u if DD_TOKENS else at_t) * dd_s * V, dd, mask=tokens if DD_TOKENS else steps)
        if not AHEAD:
            p = p_next
            steps_n = (t >= T * W)[:, :, None] & mc3
            tokens_n = (steps_n & (p >= 0)[:, :, None]) if ORDER else steps_n
            at_un = p.to(tl.int64)[:, :, None]
            at_dn = at_un if D_TOKENS else (t - T * W).to(tl.int64)[:, :, None]
            u_next = tl.load(u_p + at_un * u_s * V, mask=tokens_n, other=0.0)
            g_next = tl.load(g_p + at_un * g_s * V, mask=tokens_n, other=0.0)
            d_next = tl.load(d_p + at_dn * d_s * V, mask=tokens_n if D_TOKENS else steps_n, other=0.0)
            p_next = load_row_numbers(order_p, t - 2 * T * W, t >= 2 * T * W, ORDER)
    sum_p = sums + bk.to(tl.int64) * R * channels + oc
    tl.store(sum_p, tl.sum(sum_A, 0), mask=mc)
    tl.store(sum_p + channels, tl.sum(sum_D, 0), mask=mc)
    tl.store(sum_p + 2 * channels, tl.sum(sum_bias, 0), mask=mc)
    if CONST_B:
        tl.store(sum_p + 3 * channels, tl.sum(sum_B, 0), mask=mc)
    if CONST_C:
        tl.store(sum_p + (R - 1) * channels, tl.sum(sum_C, 0), mask=mc)
    if INITIAL:
        tl.store(dinitial + own[None, :] + ow[:, None] * 0, X_in, mask=(ow == 0)[:, None] & mc[None, :])


@triton.jit
def finish(
    partial, sums, dB, dC, dA, dD, dbias, dBc, dCc, order,
    length, padded, channels, n_rows, n_parts, part_stride, n_bk, n_tiles, n_ctiles, order_b,
    b_b, b_k, b_t, b_n, c_b, c_k, c_t, c_n, a_c, a_n, bc_c, bc_n, cc_c, cc_n,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BT: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """One launch for all final sums: B̄ and C̄ over the channel tiles, Ā, D̄, bias (constant B̄, C̄) over (b, chunk)."""
    pid = tl.program_id(0)
    R: tl.constexpr = N + 2 + (N if CONST_B else 0) + (N if CONST_C else 0)
    if pid < n_tiles * n_bk:
        bk = pid // n_tiles
        b = (bk // K).to(tl.int64)
        k = bk % K
        t = (pid % n_tiles) * BT + tl.arange(0, BT)
        on = tl.arange(0, NP)
        inside = t < length
        if TOKENS:  # only where an order visits every token once
            row = tl.load(order + b * order_b + k * length + t, mask=inside, other=-1)
            inside = inside & (row >= 0)
            row = row.to(tl.int64)
        else:
            row = t.to(tl.int64)
        src = partial + bk.to(tl.int64) * (2 * NP) * padded + on[:, None] * padded + t[None, :]
        loaded = (on < N)[:, None] & (t < length)[None, :]
        mask = (on < N)[:, None] & inside[None, :]
        if not CONST_B:
            part = src
            acc = tl.zeros([NP, BT], tl.float32)
            for _ in range(0, n_parts):
                acc += tl.load(part, mask=loaded, other=0.0)
                part += part_stride
            tl.store(dB + b * b_b + k * b_k + row[None, :] * b_t + on[:, None] * b_n, acc, mask=mask)
        if not CONST_C:
            part = src + NP * padded
            acc = tl.zeros([NP, BT], tl.float32)
            for _ in range(0, n_parts):
                acc += tl.load(part, mask=loaded, other=0.0)
                part += part_stride
            tl.store(dC + b * c_b + k * c_k + row[None, :] * c_t + on[:, None] * c_n, acc, mask=mask)
    else:
        pid -= n_tiles * n_bk
        oc = (pid % n_ctiles) * BC + tl.arange(0, BC)
        pid = pid // n_ctiles
        j = pid % R  # which row of the sums
        k = pid // R
        mc = oc < channels
        chunks = n_rows // n_bk
        per_k = n_rows // K
        acc = tl.zeros([BR, BC], tl.float32)
        for i in range(0, per_k, BR):
            r = i + tl.arange(0, BR)
            at = ((r // chunks) * K + k) * chunks + r % chunks
            acc += tl.load(sums + (at.to(tl.int64) * R + j)[:, None] * channels + oc[None, :],
                           mask=(r < per_k)[:, None] & mc[None, :], other=0.0)  # fmt: skip
        total = tl.sum(acc, 0)
        kc = (k * channels + oc).to(tl.int64)
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
