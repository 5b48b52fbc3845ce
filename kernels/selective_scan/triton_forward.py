"""Forward kernels of the selective scan, channels-last.

Names: b batch, k group of channels or scan order, t step, c channel, n state. Every large tensor is a view
(b, k, row, c) with any strides. `order` (b or 1, k, t) maps steps to rows where rows are tokens in another order; -1 is
a row of zeros. A arrives packed as (k, n, c) times log2(e), B and C as float32 rows (b k, t, 2 NP) in step order, both
by `pack`. Strides of b and k come divided by V and unspecialized, and so does the number of channels, `cv`: the
compiler must not find out that more than V channels lie together, see triton_common. Row strides (`u_s` and so on) are
constants, so that a tile's rows cost no address arithmetic.
"""
# ruff: noqa: SIM102 (conditions on constants stay apart)

import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import (
    LN2,
    LOG2E,
    after_previous,
    ex2,
    pick,
    prefetch,
    sigmoid,
    softplus,
    softplus_log2,
    widen,
)


@triton.jit
def pack(
    A, B, C, At, rows, cols, order, length, padded, channels, order_b,
    a_c, a_n, b_b, b_k, b_t, b_n, c_b, c_k, c_t, c_n, n_tiles, n_bk,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BT: tl.constexpr, HAS_B: tl.constexpr, HAS_C: tl.constexpr,
    ORDER: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One launch for all small operands: A transposed and scaled; B and C in step order, as rows (t, n) or columns."""
    after_previous(OVERLAP)
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
        place = pid - n_tiles * n_bk
        ka = place % K
        oc = (place // K) * 128 + tl.arange(0, 128)
        mc = (oc < channels)[None, :]
        src = A + (ka * channels + oc).to(tl.int64)[None, :] * a_c + on[:, None] * a_n
        a = tl.load(src, mask=mc & (on < N)[:, None], other=0.0)
        tl.store(At + (ka * NP + on[:, None]) * channels + oc[None, :], a * LOG2E, mask=mc)


@triton.jit
def row_numbers(order, t, inside, ORDER: tl.constexpr, FULL: tl.constexpr):
    """The tokens of steps t, or the steps themselves."""
    if ORDER and FULL:
        return tl.load(order + t)
    elif ORDER:
        return tl.load(order + t, mask=inside, other=-1)
    else:
        return t


@triton.jit
def row_pointers(base, p, t0, ot, one, S: tl.constexpr, UNIT: tl.constexpr, TOKENS: tl.constexpr):
    """Pointers to a tile's rows: of tokens p, or of the steps t0 + ot; t0 is int64."""
    if TOKENS and UNIT:  # tell what got lost with p: channels are adjacent (8 is less than any tile has)
        return tl.max_contiguous(base + p.to(tl.int64) * S, (1, 8))
    elif TOKENS:
        return base + p.to(tl.int64) * S
    elif UNIT:
        return base + t0 * S + ot.to(tl.int64) * S
    else:  # channels-first: hide from the compiler that rows are adjacent, or it lays time over the lanes
        return base + t0 * S + ot.to(tl.int64) * one * S


@triton.jit
def fetch(pointers, mask, ALL: tl.constexpr):
    """Loads, without the cost of masks where all of a tile is always there."""
    if ALL:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def put(pointers, x, mask, ALL: tl.constexpr):
    if ALL:
        tl.store(pointers, x)
    else:
        tl.store(pointers, x, mask=mask)


@triton.jit
def across(oc, stride, UNIT: tl.constexpr):
    """Offsets of channels."""
    if UNIT:
        return oc
    else:
        return oc.to(tl.int64) * stride


@triton.jit
def step_sizes(d, bias_c, inside, SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, FULL: tl.constexpr):
    """Step sizes from their rows; zero beyond the end, where the state then stays as it is."""
    s = d.to(tl.float32) + bias_c
    if SOFTPLUS:
        s = softplus(s, ex2(s * LOG2E), PRECISE)
    if FULL:
        return s
    else:
        return tl.where(inside, s, 0.0)


@triton.jit
def log2_step_sizes(
    d, bias_c, inside, SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, FULL: tl.constexpr, V: tl.constexpr
):  # fmt: skip
    """Step sizes times log2(e), `bias_c` times log2(e) already; zero beyond the end."""
    if PRECISE:
        s = step_sizes(d, bias_c * LN2, inside, SOFTPLUS, True, FULL) * LOG2E
    else:
        s = widen(d, V) * LOG2E + bias_c
        if SOFTPLUS:
            s = softplus_log2(s, False)
        if not FULL:
            s = tl.where(inside, s, 0.0)
    return s


@triton.jit
def prefetch_rows(rows, T: tl.constexpr, NP: tl.constexpr, NEAR: tl.constexpr):
    """B and C of the T steps from `rows` on, of which each is then read by all lanes at once."""
    if NEAR > 0:
        at = tl.arange(0, 32)
        for i in tl.static_range((T * NP + 127) // 128):  # 32 bytes a lane
            byte = (i * 32 + at) * 32
            prefetch((rows + byte // 4).to(tl.int64), byte < T * NP * 8, NEAR)


@triton.jit(do_not_specialize=["cv", "one", "u_b", "u_k", "d_b", "d_k", "z_b", "z_k", "y_b", "y_k"])
def scan_states(
    u, delta, rows, At, Bc, Cc, D, bias, z, y, initial, last, entering, ends, decays, saved, order,
    length, padded, cv, one, n_ctiles, n_chunks, n_tiles, order_b, bc_c, bc_n, cc_c, cc_n,
    u_b, u_k, u_c, d_b, d_k, d_c, z_b, z_k, z_c, y_b, y_k, y_c,
    u_s: tl.constexpr, d_s: tl.constexpr, z_s: tl.constexpr, y_s: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, BC: tl.constexpr, T: tl.constexpr, V: tl.constexpr,
    CHUNK: tl.constexpr, EVERY: tl.constexpr, PHASE: tl.constexpr, FULL: tl.constexpr, WHOLE: tl.constexpr,
    EACH: tl.constexpr, UNIT: tl.constexpr,
    HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr,
    U_TOKENS: tl.constexpr, D_TOKENS: tl.constexpr, Y_TOKENS: tl.constexpr, KEEP: tl.constexpr, LAST: tl.constexpr,
    NEAR: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Many states: a loop over time with the states [NP, BC] in registers, the next T rows of input always in flight.

    PHASE 0: the whole sequence. Long sequences: 1, every chunk from zero, keeping its last state and its sum of step
    sizes; then `carry`; 2, every chunk from its true first state. With z, order must be absent.
    """
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
    u_p = u + (b * u_b + k * u_k) * V + across(oc, u_c, UNIT)[None, :]
    d_p = delta + (b * d_b + k * d_k) * V + across(oc, d_c, UNIT)[None, :]
    z_p = z + (b * z_b + k * z_k) * V + across(oc, z_c, UNIT)[None, :]
    y_p = y + (b * y_b + k * y_k) * V + across(oc, y_c, UNIT)[None, :]
    order_p = order + b * order_b + k * length
    row_p = rows + bk.to(tl.int64) * padded * (2 * NP)

    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    begin64 = begin.to(tl.int64)
    ALL: tl.constexpr = FULL and WHOLE
    ALL_P: tl.constexpr = ALL and (EACH or not ORDER)
    ALL_U: tl.constexpr = ALL_P if U_TOKENS else ALL
    ALL_D: tl.constexpr = ALL_P if D_TOKENS else ALL
    t = begin + ot
    p = row_numbers(order_p, t, t < end, ORDER, FULL)
    t = (tl.minimum(begin + T, end - T) + ot) if FULL else (begin + T + ot)
    p_next = row_numbers(order_p, t, t < end, ORDER, FULL)
    m_s = (begin + ot < end)[:, None] & mc[None, :]
    m_p = (m_s & (p >= 0)[:, None]) if ORDER else m_s
    u_next = fetch(row_pointers(u_p, p[:, None], begin64, ot_c, one, u_s, UNIT, U_TOKENS),
                   m_p if U_TOKENS else m_s, ALL_U)  # fmt: skip
    d_next = fetch(row_pointers(d_p, p[:, None], begin64, ot_c, one, d_s, UNIT, D_TOKENS),
                   m_p if D_TOKENS else m_s, ALL_D)  # fmt: skip
    if HAS_Z and PHASE != 1:
        z_next = fetch(row_pointers(z_p, p[:, None], begin64, ot_c, one, z_s, UNIT, False), m_s, ALL)
    for t0 in range(begin, end, T):
        now = begin64 + (t0 - begin)
        inside = (t0 + ot < end)[:, None]
        p_now = p
        u_tc = u_next.to(tl.float32)
        d_now = d_next
        if HAS_Z and PHASE != 1:
            z_tc = z_next.to(tl.float32)
        # the next tile's loads go out before this tile's work: no load moves above a store by itself; behind the last
        # tile they repeat it (FULL) or are masked
        p = p_next
        if FULL:
            ahead = begin64 + (tl.minimum(t0 + T, end - T) - begin)
            t = tl.minimum(t0 + 2 * T, end - T) + ot
        else:
            ahead = now + T
            t = t0 + 2 * T + ot
        m_s = (t0 + T + ot < end)[:, None] & mc[None, :]
        m_p = (m_s & (p >= 0)[:, None]) if ORDER else m_s
        u_next = fetch(row_pointers(u_p, p[:, None], ahead, ot_c, one, u_s, UNIT, U_TOKENS),
                       m_p if U_TOKENS else m_s, ALL_U)  # fmt: skip
        d_next = fetch(row_pointers(d_p, p[:, None], ahead, ot_c, one, d_s, UNIT, D_TOKENS),
                       m_p if D_TOKENS else m_s, ALL_D)  # fmt: skip
        if HAS_Z and PHASE != 1:
            z_next = fetch(row_pointers(z_p, p[:, None], ahead, ot_c, one, z_s, UNIT, False), m_s, ALL)
        p_next = row_numbers(order_p, t, t < end, ORDER, FULL)
        if not (CONST_B and CONST_C):
            prefetch_rows(row_p + (begin64 + (tl.minimum(t0 + T, end - 1) - begin)) * (2 * NP), T, NP, NEAR)

        s = step_sizes(d_now, bias_c[None, :], inside, SOFTPLUS, PRECISE, FULL)
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
                x_nc = pick(su, i, ot_c)[None, :] * B_nc
            else:
                x_nc = pick(su, i, ot_c)[None, :] * tl.load(row_p + (now + i) * (2 * NP) + on)[:, None]
            h = ex2(pick(s, i, ot_c)[None, :] * a_nc) * h + x_nc
            if PHASE != 1:
                if CONST_C:
                    y_i = tl.sum(h * C_nc, 0)
                else:
                    y_i = tl.sum(h * tl.load(row_p + (now + i) * (2 * NP) + NP + on)[:, None], 0)
                y_tc = tl.where(ot_c == i, y_tc + y_i[None, :], y_tc)
        if PHASE != 1:
            if HAS_Z:
                y_tc = y_tc * z_tc * sigmoid(z_tc)
            m_s_now = inside & mc[None, :]
            m_now = (m_s_now & (p_now >= 0)[:, None]) if Y_TOKENS else m_s_now
            put(row_pointers(y_p, p_now[:, None], now, ot_c, one, y_s, UNIT, Y_TOKENS), y_tc, m_now,
                ALL_P if Y_TOKENS else ALL)  # fmt: skip
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
    REVERSED: tl.constexpr, HAS_FIRST: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """What enters each chunk, from what each adds by itself; sixteen chunks a step, or every step waits for memory.

    REVERSED serves the adjoint, which enters chunks from the right. `first` is (b, k c, n).
    """
    after_previous(OVERLAP)
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
    at, mask, decay_next, x_next = _chunks(
        ends, decays, bk, 0, n, oc, mc, channels, n_chunks, NP, REVERSED
    )  # fmt: skip
    for i in range(0, n_chunks, 16):
        at_now, mask_now, x = at, mask, x_next
        decay = ex2(decay_next * a[None, :])
        # the next chunks' loads go out before this step's stores: none moves above a store by itself
        at, mask, decay_next, x_next = _chunks(
            ends, decays, bk, i + 16, n, oc, mc, channels, n_chunks, NP, REVERSED
        )  # fmt: skip
        out = x
        for j in tl.static_range(16):
            out = tl.where(o16[:, None] == j, h[None, :], out)
            h = pick(decay, j, o16[:, None]) * h + pick(x, j, o16[:, None])
        tl.store(entering + (at_now[:, None] * NP + n) * channels + oc[None, :], out, mask=mask_now)


@triton.jit
def _chunks(ends, decays, bk, i, n, oc, mc, channels, n_chunks, NP: tl.constexpr, REVERSED: tl.constexpr):
    """Sixteen chunks from i on: their rows, which of them there are, sums of step sizes, and what each adds."""
    chunk = i + tl.arange(0, 16)
    mask = (chunk < n_chunks)[:, None] & mc[None, :]
    if REVERSED:
        chunk = n_chunks - 1 - chunk
    at = bk.to(tl.int64) * n_chunks + chunk
    decay = tl.load(decays + at[:, None] * channels + oc[None, :], mask=mask, other=0.0)
    return at, mask, decay, tl.load(ends + (at[:, None] * NP + n) * channels + oc[None, :], mask=mask, other=0.0)
