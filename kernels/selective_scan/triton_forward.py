"""Forward kernels of the selective scan, channels-last.

Names: b batch, k group of channels or scan order, t step, c channel, n state. Every large tensor is a view
(b, k, row, c) with any strides. `order` (b or 1, k, t) maps steps to rows where rows are tokens in another order; -1 is
a row of zeros. A arrives packed as (k, n, c) times log2(e), B and C as float32 rows (b k, t, 2 NP) in step order, both
by `pack`. Row strides (`u_s` and so on) come divided by V, see triton_common.
"""

import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import LOG2E, compose, ex2, pick, sigmoid, softplus


@triton.jit
def pack(
    A, B, C, At, rows, cols, order, length, padded, channels, order_b,
    a_c, a_n, b_b, b_k, b_t, b_n, c_b, c_k, c_t, c_n, n_tiles, n_bk,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BT: tl.constexpr, HAS_B: tl.constexpr, HAS_C: tl.constexpr,
    ORDER: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """One launch for all small operands: A transposed and scaled; B and C in step order, as rows (t, n) and columns (n, t)."""
    pid = tl.program_id(0)
    on = tl.arange(0, NP)
    if pid < n_tiles * n_bk:
        bk = pid // n_tiles
        b = (bk // K).to(tl.int64)
        k = bk % K
        t = (pid % n_tiles) * BT + tl.arange(0, BT)
        inside = t < length
        if ORDER:
            row = tl.load(order + b * order_b + k * length + t, mask=inside, other=-1)
            inside = inside & (row >= 0)
        else:
            row = t
        row = row.to(tl.int64)[:, None]
        mask = inside[:, None] & (on < N)[None, :]
        stored = (t < padded)[:, None] & (on >= 0)[None, :]
        row_p = rows + bk.to(tl.int64) * padded * (2 * NP) + t[:, None] * (2 * NP) + on[None, :]
        col_p = cols + bk.to(tl.int64) * padded * (2 * NP) + on[None, :] * padded + t[:, None]
        if HAS_B:
            x = tl.load(B + b * b_b + k * b_k + row * b_t + on[None, :] * b_n, mask=mask, other=0.0).to(tl.float32)
            if ROWS:
                tl.store(row_p, x, mask=stored)
            if COLS:
                tl.store(col_p, x, mask=stored)
        if HAS_C:
            x = tl.load(C + b * c_b + k * c_k + row * c_t + on[None, :] * c_n, mask=mask, other=0.0).to(tl.float32)
            if ROWS:
                tl.store(row_p + NP, x, mask=stored)
            if COLS:
                tl.store(col_p + NP * padded, x, mask=stored)
    else:  # the programs behind the steps pack A
        pid -= n_tiles * n_bk
        k = pid % K
        oc = (pid // K) * 128 + tl.arange(0, 128)
        mask = (oc < channels)[None, :]
        src = A + (k * channels + oc).to(tl.int64)[None, :] * a_c + on[:, None] * a_n
        a = tl.load(src, mask=mask & (on < N)[:, None], other=0.0)
        tl.store(At + (k * NP + on[:, None]) * channels + oc[None, :], a * LOG2E, mask=mask)


@triton.jit
def load_row_numbers(order, t, inside, ORDER: tl.constexpr):
    if ORDER:
        return tl.load(order + t, mask=inside, other=-1)
    else:
        return t


@triton.jit(do_not_specialize=["u_b", "u_k", "u_s", "d_b", "d_k", "d_s", "z_b", "z_k", "z_s", "y_b", "y_k", "y_s"])
def scan_states(
    u, delta, rows, At, Bc, Cc, D, bias, z, y, initial, last, entering, ends, decays, saved, order,
    length, padded, channels, n_ctiles, n_chunks, n_tiles, order_b, bc_c, bc_n, cc_c, cc_n,
    u_b, u_k, u_s, u_c, d_b, d_k, d_s, d_c, z_b, z_k, z_s, z_c, y_b, y_k, y_s, y_c,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BC: tl.constexpr, T: tl.constexpr, V: tl.constexpr,
    CHUNK: tl.constexpr, EVERY: tl.constexpr, PHASE: tl.constexpr, WHOLE: tl.constexpr, UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr,
    ORDER: tl.constexpr, D_TOKENS: tl.constexpr, Y_TOKENS: tl.constexpr, KEEP: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Many states: a loop over time with the states [NP, BC] in registers, the next T rows of input always in flight.

    PHASE 0: the whole sequence. Long sequences: 1, every chunk from zero, keeping its last state and its sum of step
    sizes; then `carry`; 2, every chunk from its true first state.
    """
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
    state = ((bk.to(tl.int64) * n_chunks + chunk) * NP + on[:, None]) * channels + oc[None, :]

    bias_c = tl.zeros([BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    if HAS_D:
        D_c = tl.load(D + kc, mask=mc, other=0.0)
    a_nc = tl.load(At + (k * NP + on[:, None]) * channels + oc[None, :], mask=mc[None, :], other=0.0)
    mn = (on < N)[:, None] & mc[None, :]
    if CONST_B:
        B_nc = tl.load(Bc + kc[None, :] * bc_c + on[:, None] * bc_n, mask=mn, other=0.0).to(tl.float32)
    if CONST_C:
        C_nc = tl.load(Cc + kc[None, :] * cc_c + on[:, None] * cc_n, mask=mn, other=0.0).to(tl.float32)
    own = (b * K * channels + kc)[None, :] * N + on[:, None]  # of initial and last (b, k c, n)
    if PHASE == 2:
        h = tl.load(entering + state, mask=mc[None, :], other=0.0)
    elif PHASE == 0 and HAS_INITIAL:
        h = tl.load(initial + own, mask=mn, other=0.0)
    else:
        h = tl.zeros([NP, BC], tl.float32)
    total = tl.zeros([BC], tl.float32)

    if UNIT:
        ou = oc
        od = oc
        oz = oc
        oy = oc
    else:
        ou = oc.to(tl.int64) * u_c
        od = oc.to(tl.int64) * d_c
        oz = oc.to(tl.int64) * z_c
        oy = oc.to(tl.int64) * y_c
    u_p = u + (b * u_b + k * u_k) * V + ou[None, :]
    d_p = delta + (b * d_b + k * d_k) * V + od[None, :]
    if HAS_Z:
        z_p = z + (b * z_b + k * z_k) * V + oz[None, :]
    y_p = y + (b * y_b + k * y_k) * V + oy[None, :]
    order_p = order + b * order_b + k * length
    row_p = rows + bk.to(tl.int64) * padded * (2 * NP)

    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    t = begin + ot
    inside = t < end
    p = load_row_numbers(order_p, t, inside, ORDER)
    p_next = load_row_numbers(order_p, t + T, t + T < end, ORDER)
    m_u = ((inside & (p >= 0)) if ORDER else inside)[:, None] & mc[None, :]
    m_d = m_u if D_TOKENS else (inside[:, None] & mc[None, :])
    u_next = tl.load(u_p + p.to(tl.int64)[:, None] * u_s * V, mask=m_u, other=0.0)
    d_next = tl.load(d_p + (p if D_TOKENS else t).to(tl.int64)[:, None] * d_s * V, mask=m_d, other=0.0)
    if HAS_Z and PHASE != 1:
        z_next = tl.load(z_p + p.to(tl.int64)[:, None] * z_s * V, mask=m_u, other=0.0)
    for t0 in range(begin, end, T):
        t = t0 + ot
        inside = t < end
        p_now = p
        m_now = m_u
        u_tc = u_next.to(tl.float32)
        dt_tc = d_next.to(tl.float32)
        if HAS_Z and PHASE != 1:
            z_tc = z_next.to(tl.float32)
        # the next tile's loads go out before this tile's work: no load moves above a store by itself
        p = p_next
        ahead = t + T < end
        m_u = ((ahead & (p >= 0)) if ORDER else ahead)[:, None] & mc[None, :]
        m_d = m_u if D_TOKENS else (ahead[:, None] & mc[None, :])
        u_next = tl.load(u_p + p.to(tl.int64)[:, None] * u_s * V, mask=m_u, other=0.0)
        d_next = tl.load(d_p + (p if D_TOKENS else t + T).to(tl.int64)[:, None] * d_s * V, mask=m_d, other=0.0)
        if HAS_Z and PHASE != 1:
            z_next = tl.load(z_p + p.to(tl.int64)[:, None] * z_s * V, mask=m_u, other=0.0)
        p_next = load_row_numbers(order_p, t + 2 * T, t + 2 * T < end, ORDER)

        dt_tc += bias_c[None, :]
        if SOFTPLUS:
            s = softplus(dt_tc, ex2(dt_tc * LOG2E), PRECISE)
        else:
            s = dt_tc
        s = tl.where(inside[:, None], s, 0.0)
        su = s * u_tc
        if PHASE == 1:
            total += tl.sum(s, 0)
        if HAS_D:
            y_tc = D_c[None, :] * u_tc
        else:
            y_tc = tl.zeros([T, BC], tl.float32)
        if KEEP:
            if (t0 - begin) % EVERY == 0:
                at = ((bk.to(tl.int64) * n_tiles + t0 // EVERY) * NP + on[:, None]) * channels + oc[None, :]
                tl.store(saved + at, h, mask=mc[None, :])
        for i in tl.static_range(T):
            if CONST_B:
                x_nc = pick(su, i, ot[:, None])[None, :] * B_nc
            else:
                x_nc = pick(su, i, ot[:, None])[None, :] * tl.load(row_p + (t0 + i) * (2 * NP) + on)[:, None]
            h = ex2(pick(s, i, ot[:, None])[None, :] * a_nc) * h + x_nc
            if PHASE != 1:
                if CONST_C:
                    y_c_i = tl.sum(h * C_nc, 0)
                else:
                    y_c_i = tl.sum(h * tl.load(row_p + (t0 + i) * (2 * NP) + NP + on)[:, None], 0)
                y_tc = tl.where(ot[:, None] == i, y_tc + y_c_i[None, :], y_tc)
        if PHASE != 1:
            if HAS_Z:
                y_tc = y_tc * z_tc * sigmoid(z_tc)
            if Y_TOKENS:
                tl.store(y_p + p_now.to(tl.int64)[:, None] * y_s * V, y_tc, mask=m_now)
            else:
                tl.store(y_p + t.to(tl.int64)[:, None] * y_s * V, y_tc, mask=inside[:, None] & mc[None, :])
    if PHASE == 1:
        tl.store(ends + state, h, mask=mc[None, :])
        tl.store(decays + (bk.to(tl.int64) * n_chunks + chunk) * channels + oc, total, mask=mc)
    elif LAST:
        if chunk == n_chunks - 1:
            tl.store(last + own, h, mask=mn)


@triton.jit(do_not_specialize=["channels"])
def carry(
    ends, decays, At, first, entering, channels, n_ctiles, n_chunks,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BC: tl.constexpr,
    REVERSED: tl.constexpr, HAS_FIRST: tl.constexpr,
):  # fmt: skip
    """What enters each chunk, from what each adds by itself; sixteen chunks a step, or every step waits for memory.

    REVERSED serves the adjoint, which enters chunks from the right. `first` is (b, k c, n).
    """
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    n = (pid // n_ctiles) % NP
    bk = pid // n_ctiles // NP
    b = (bk // K).to(tl.int64)
    k = bk % K
    oc = pc * BC + tl.arange(0, BC)
    mc = oc < channels
    o16 = tl.arange(0, 16)
    a = tl.load(At + (k * NP + n) * channels + oc, mask=mc, other=0.0)
    own = (b * K * channels + k * channels + oc) * N + n
    if HAS_FIRST:
        h = tl.load(first + own, mask=mc & (tl.zeros([BC], tl.int32) + n < N), other=0.0)
    else:
        h = tl.zeros([BC], tl.float32)
    for i in range(0, n_chunks, 16):
        chunk = i + o16
        mask = (chunk < n_chunks)[:, None] & mc[None, :]
        if REVERSED:
            chunk = n_chunks - 1 - chunk
        at = bk.to(tl.int64) * n_chunks + chunk
        decay = tl.load(decays + at[:, None] * channels + oc[None, :], mask=mask, other=0.0)
        x = tl.load(ends + (at[:, None] * NP + n) * channels + oc[None, :], mask=mask, other=0.0)
        decay = ex2(decay * a[None, :])
        out = x
        for j in tl.static_range(16):
            out = tl.where(o16[:, None] == j, h[None, :], out)
            h = pick(decay, j, o16[:, None]) * h + pick(x, j, o16[:, None])
        tl.store(entering + (at[:, None] * NP + n) * channels + oc[None, :], out, mask=mask)


@triton.jit(do_not_specialize=["u_b", "u_k", "u_s", "d_b", "d_k", "d_s", "z_b", "z_k", "z_s", "y_b", "y_k", "y_s"])
def scan_one_state(
    u, delta, cols, At, Bc, Cc, D, bias, z, y, initial, last, saved, order,
    length, padded, channels, n_ctiles, n_tiles, order_b, bc_c, cc_c,
    u_b, u_k, u_s, u_c, d_b, d_k, d_s, d_c, z_b, z_k, z_s, z_c, y_b, y_k, y_s, y_c,
    K: tl.constexpr, BC: tl.constexpr, T: tl.constexpr, W: tl.constexpr, V: tl.constexpr,
    WHOLE: tl.constexpr, UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr,
    ORDER: tl.constexpr, D_TOKENS: tl.constexpr, Y_TOKENS: tl.constexpr, KEEP: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """One state: W warps side by side on W runs of T steps, [T, W, BC] = registers, warps, lanes.

    Each warp reduces its run to (decay, state from zero); a scan over the warps gives every run its true first state.
    """
    pid = tl.program_id(0)
    pc = pid % n_ctiles
    bk = pid // n_ctiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    oc = pc * BC + tl.arange(0, BC)
    ow = tl.arange(0, W)
    ot = tl.arange(0, T)
    rows3 = ot[:, None, None]
    step = ow[None, :] * T + ot[:, None]  # [T, W]
    if WHOLE:
        mc = oc >= 0
    else:
        mc = oc < channels
    mc3 = mc[None, None, :]
    kc = k * channels + oc
    bias_c = tl.zeros([BC], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0)
    if HAS_D:
        D_c = tl.load(D + kc, mask=mc, other=0.0)
    a_c = tl.load(At + kc, mask=mc, other=0.0)
    if CONST_B:
        B_c = tl.load(Bc + kc * bc_c, mask=mc, other=0.0).to(tl.float32)
    if CONST_C:
        C_c = tl.load(Cc + kc * cc_c, mask=mc, other=0.0).to(tl.float32)
    own = b * K * channels + kc
    if HAS_INITIAL:
        carried = tl.load(initial + own, mask=mc, other=0.0)
    else:
        carried = tl.zeros([BC], tl.float32)
    h_in = tl.zeros([W, BC], tl.float32) + carried[None, :]  # row 0 carries from tile to tile

    if UNIT:
        ou = oc
        od = oc
        oz = oc
        oy = oc
    else:
        ou = oc.to(tl.int64) * u_c
        od = oc.to(tl.int64) * d_c
        oz = oc.to(tl.int64) * z_c
        oy = oc.to(tl.int64) * y_c
    u_p = u + (b * u_b + k * u_k) * V + ou[None, None, :]
    d_p = delta + (b * d_b + k * d_k) * V + od[None, None, :]
    if HAS_Z:
        z_p = z + (b * z_b + k * z_k) * V + oz[None, None, :]
    y_p = y + (b * y_b + k * y_k) * V + oy[None, None, :]
    order_p = order + b * order_b + k * length
    B_p = cols + bk.to(tl.int64) * 2 * padded
    C_p = B_p + padded

    inside = step < length
    p = load_row_numbers(order_p, step, inside, ORDER)
    p_next = load_row_numbers(order_p, step + T * W, step + T * W < length, ORDER)
    m_u = ((inside & (p >= 0)) if ORDER else inside)[:, :, None] & mc3
    m_d = m_u if D_TOKENS else (inside[:, :, None] & mc3)
    u_next = tl.load(u_p + p.to(tl.int64)[:, :, None] * u_s * V, mask=m_u, other=0.0)
    d_next = tl.load(d_p + (p if D_TOKENS else step).to(tl.int64)[:, :, None] * d_s * V, mask=m_d, other=0.0)
    for t0 in range(0, length, T * W):
        t = t0 + step
        inside = t < length
        p_now = p
        m_now = m_u
        u_t = u_next.to(tl.float32)
        s = d_next.to(tl.float32) + bias_c[None, None, :]
        if HAS_Z:
            z_t = tl.load(z_p + p.to(tl.int64)[:, :, None] * z_s * V, mask=m_u, other=0.0).to(tl.float32)
        p = p_next
        ahead = t + T * W < length
        m_u = ((ahead & (p >= 0)) if ORDER else ahead)[:, :, None] & mc3
        m_d = m_u if D_TOKENS else (ahead[:, :, None] & mc3)
        u_next = tl.load(u_p + p.to(tl.int64)[:, :, None] * u_s * V, mask=m_u, other=0.0)
        d_next = tl.load(d_p + (p if D_TOKENS else t + T * W).to(tl.int64)[:, :, None] * d_s * V, mask=m_d, other=0.0)
        p_next = load_row_numbers(order_p, t + 2 * T * W, t + 2 * T * W < length, ORDER)

        if SOFTPLUS:
            s = softplus(s, ex2(s * LOG2E), PRECISE)
        s = tl.where(inside[:, :, None], s, 0.0)
        a = ex2(s * a_c[None, None, :])
        if CONST_B:
            x = s * u_t * B_c[None, None, :]
        else:
            x = s * u_t * tl.load(B_p + t)[:, :, None]
        if CONST_C:
            C_t = tl.broadcast_to(C_c[None, None, :], [T, W, BC])
        else:
            C_t = tl.broadcast_to(tl.load(C_p + t)[:, :, None], [T, W, BC])
        if W > 1:
            h = tl.zeros([W, BC], tl.float32)
            for i in tl.static_range(T):
                h = pick(a, i, rows3) * h + pick(x, i, rows3)
            decay = ex2(tl.sum(s, 0) * a_c[None, :])
            h = tl.where(ow[:, None] == 0, decay * h_in + h, h)
            _, h = tl.associative_scan((decay, h), 0, compose)
            before = tl.gather(h, (ow[:, None] + (W - 1)) % W + tl.zeros([W, BC], tl.int32), 0)
            h_in = tl.where(ow[:, None] == 0, h_in, before)
        if KEEP:
            at = (bk.to(tl.int64) * n_tiles + t0 // T + ow)[:, None] * channels + oc[None, :]
            tl.store(saved + at, h_in, mask=(t0 // T + ow < n_tiles)[:, None] & mc[None, :])
        h = h_in
        y_t = tl.zeros([T, W, BC], tl.float32)
        if HAS_D:
            y_t = D_c[None, None, :] * u_t
        for i in tl.static_range(T):
            h = pick(a, i, rows3) * h + pick(x, i, rows3)
            y_t = tl.where(rows3 == i, y_t + (h * pick(C_t, i, rows3))[None, :, :], y_t)
        if W > 1:
            h_in = tl.where(ow[:, None] == 0, before, h_in)
        else:
            h_in = h
        if HAS_Z:
            y_t = y_t * z_t * sigmoid(z_t)
        if Y_TOKENS:
            tl.store(y_p + p_now.to(tl.int64)[:, :, None] * y_s * V, y_t, mask=m_now)
        else:
            tl.store(y_p + t.to(tl.int64)[:, :, None] * y_s * V, y_t, mask=inside[:, :, None] & mc3)
    if LAST:
        # beyond the end s is 0, so the state stays: row 0 holds the one after the last step
        tl.store(last + own[None, :] + ow[:, None] * 0, h_in, mask=(ow == 0)[:, None] & mc[None, :])
