"""Forward of the selective scan with the states of a channel over lanes: one walk over a sequence that is not split.

Names as in triton_forward. A channel has G lanes of a warp, each of which keeps NP / G of its states in registers, so
that there are G times as many warps as with a lane a channel: enough without a split, which computes every exponential
twice. Per tile of G steps lane g loads the tokens and the step size of step g and hands them to the other lanes of its
channel by shuffles; at the tile's end the lanes exchange their shares of the G outputs so that lane g has that of step
g. W warps of a program walk side by side on neighbouring channels: they find each other's lines in the L1.
"""
# ruff: noqa: SIM102 (conditions on constants stay apart)

import triton
import triton.language as tl

from mamba_vision.kernels.selective_scan.triton_forward import log2_step_sizes
from mamba_vision.kernels.triton_common import LN2, LOG2E, PTX, after_previous, ex2, pick, prefetch, sigmoid


@triton.jit
def from_lane(x, j, G: tl.constexpr):
    """What lane j (a constant) of the G lanes of a channel holds, for all of them; one element a thread."""
    if PTX:
        return tl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, $2, $3, -1;", "=f,f,r,r", [x, j, (32 - G) * 256 + 31], dtype=tl.float32,
            is_pure=True, pack=1,
        )  # fmt: skip
    else:
        lane = tl.arange(0, x.shape[0])
        return tl.gather(x, lane // G * G + j, 0)


@triton.jit
def exchanged(x, M: tl.constexpr):
    """What the lane whose number differs in bit M holds."""
    if PTX:
        return tl.inline_asm_elementwise(
            "shfl.sync.bfly.b32 $0, $1, $2, 31, -1;", "=f,f,r", [x, M], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.gather(x, tl.arange(0, x.shape[0]) ^ M, 0)


@triton.jit
def halved(x, M: tl.constexpr):
    """Rows [2 M, lanes] to [M, lanes]: lanes with bit M keep the upper rows and add what those without it have there,
    and the other way round."""
    lane = tl.arange(0, x.shape[1])
    old, new = tl.arange(0, 2 * M)[:, None], tl.arange(0, M)[:, None]
    upper = (lane & M) != 0
    out = tl.zeros([M, x.shape[1]], tl.float32)
    for i in tl.static_range(M):
        low, high = pick(x, i, old), pick(x, i + M, old)
        total = tl.where(upper, high, low) + exchanged(tl.where(upper, low, high), M)
        out = tl.where(new == i, total[None, :], out)
    return out


@triton.jit
def own_sums(x, G: tl.constexpr):
    """Rows [G, lanes]: lane g of each G gets the sum of row g over them, in G - 1 shuffles."""
    if G >= 16:
        x = halved(x, 8)
    if G >= 8:
        x = halved(x, 4)
    if G >= 4:
        x = halved(x, 2)
    if G >= 2:
        x = halved(x, 1)
    return tl.sum(x, 0)


@triton.jit
def slab(rows, g, part, PARTS: tl.constexpr, S: tl.constexpr, G: tl.constexpr):
    """B and C (or one of them, part of 2) of G steps as [words, lanes, G], an order of axes in which steps lie in
    registers. A word is a float32 or a pair of bfloat16."""
    WORDS: tl.constexpr = S if rows.dtype.element_ty == tl.int32 else 2 * S
    word = part * (WORDS // PARTS) + tl.arange(0, WORDS // PARTS)
    at = tl.arange(0, G)[None, None, :] * (G * WORDS) + (g * WORDS)[None, :, None] + word[:, None, None]
    return tl.load(rows + at)


@triton.jit
def of_step(x, j, part, PARTS: tl.constexpr, S: tl.constexpr, G: tl.constexpr):
    """B or C (part 0 or 1) of step j, constants, of a slab, as float32 [states, lanes]; sums only pick, see `pick`."""
    bits = tl.sum(tl.where(tl.arange(0, G)[None, None, :] == j, x.to(tl.int32, bitcast=True), 0), 2)
    if PARTS == 1:
        bits = tl.reshape(bits, [2, x.shape[0] // 2, x.shape[1]])
        bits = tl.sum(tl.where(tl.arange(0, 2)[:, None, None] == part, bits, 0), 0)
    if x.dtype == tl.int32:
        bits = tl.join(bits << 16, bits & -65536)
        bits = tl.reshape(tl.permute(bits, (0, 2, 1)), [S, x.shape[1]])
    return bits.to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["channels", "u_b", "u_k", "d_b", "d_k", "z_b", "z_k", "y_b", "y_k"])
def scan_lanes(
    u, delta, rows, A, Bc, Cc, D, bias, z, y, initial, last, saved, order,
    length, padded, channels, n_ctiles, n_tiles, order_b, a_c, a_n, bc_c, bc_n, cc_c, cc_n,
    u_b, u_k, u_c, d_b, d_k, d_c, z_b, z_k, z_c, y_b, y_k, y_c,
    u_s: tl.constexpr, d_s: tl.constexpr, z_s: tl.constexpr, y_s: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, G: tl.constexpr, W: tl.constexpr, EVERY: tl.constexpr,
    EACH: tl.constexpr, HAS_Z: tl.constexpr, HAS_D: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr,
    SOFTPLUS: tl.constexpr, PRECISE: tl.constexpr, CONST_B: tl.constexpr, CONST_C: tl.constexpr, ORDER: tl.constexpr,
    U_TOKENS: tl.constexpr, D_TOKENS: tl.constexpr, Y_TOKENS: tl.constexpr, KEEP: tl.constexpr, LAST: tl.constexpr,
    NEAR: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """As scan_states in one phase. `rows` (b k, t, g, 2, NP / G) hold B and C as float32, or as pairs of bfloat16 in
    int32; A is as given."""
    after_previous(OVERLAP)
    S: tl.constexpr = NP // G
    pid = tl.program_id(0)
    bk = pid // n_ctiles
    b = (bk // K).to(tl.int64)
    k = bk % K
    lane = tl.arange(0, 32 * W)
    g = lane % G
    c = (pid % n_ctiles) * (32 * W // G) + lane // G
    mc = c < channels
    kc = k * channels + c
    on = (g * S)[None, :] + tl.arange(0, S)[:, None]
    og = tl.arange(0, G)
    mn = (on < N) & mc[None, :]

    bias_c = tl.zeros([32 * W], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + kc, mask=mc, other=0.0) * LOG2E
    if HAS_D:
        D_c = tl.load(D + kc, mask=mc, other=0.0)
    a = tl.load(A + kc.to(tl.int64)[None, :] * a_c + on * a_n, mask=mn, other=0.0)
    if CONST_B:
        B_n = tl.load(Bc + kc[None, :] * bc_c + on * bc_n, mask=mn, other=0.0).to(tl.float32)
    if CONST_C:
        C_n = tl.load(Cc + kc[None, :] * cc_c + on * cc_n, mask=mn, other=0.0).to(tl.float32)
    own = (b * K * channels + kc)[None, :] * N + on  # of initial and last (b, k c, n)
    if HAS_INITIAL:
        h = tl.load(initial + own, mask=mn, other=0.0)
    else:
        h = tl.zeros([S, 32 * W], tl.float32)
    c64, k64, zero = c.to(tl.int64), k.to(tl.int64), b * 0
    u_p = u + b * u_b + k64 * u_k + c64 * u_c
    d_p = delta + b * d_b + k64 * d_k + c64 * d_c
    z_p = z + b * z_b + k64 * z_k + c64 * z_c
    y_p = y + b * y_b + k64 * y_k + c64 * y_c
    order_p = order + b * order_b + k * length + g
    ROW: tl.constexpr = NP if rows.dtype.element_ty == tl.int32 else 2 * NP
    PARTS: tl.constexpr = 1 if ROW <= 4 * G else 2  # a load of more than 16 bytes would be spread over lanes
    row_p = rows + bk.to(tl.int64) * padded * ROW
    saved_p = saved + (bk.to(tl.int64) * n_tiles * NP + g * S) * channels + c

    p_next = g
    m_p = mc & (g < length)
    if ORDER:
        p = tl.load(order_p, mask=g < length, other=-1)
        p_next = tl.load(order_p + G, mask=g + G < length, other=-1)
        m_p = m_p & (p >= 0)
    else:
        p = g
    m_s = mc & (g < length)
    u_next = tl.load(u_p + (p if U_TOKENS else g).to(tl.int64) * u_s, mask=m_p if U_TOKENS else m_s, other=0.0)
    d_next = tl.load(d_p + (p if D_TOKENS else g).to(tl.int64) * d_s, mask=m_p if D_TOKENS else m_s, other=0.0)
    if HAS_Z:
        z_next = tl.load(z_p + g.to(tl.int64) * z_s, mask=m_s, other=0.0)
    if not (CONST_B and CONST_C):
        B_next = slab(row_p, g, 0, PARTS, S, G)
        if PARTS == 2:
            C_next = slab(row_p, g, 1, PARTS, S, G)
    for t0 in range(0, length, G):
        # the next tile's loads go out before this tile's work: no load moves above a store by itself
        t = t0 + g
        m_now = mc & (t < length)
        if Y_TOKENS:
            y_at = y_p + p.to(tl.int64) * y_s
            if not EACH:
                m_now = m_now & (p >= 0)
        else:
            y_at = y_p + t.to(tl.int64) * y_s
        x = u_next.to(tl.float32)
        d = d_next
        ahead = t + G
        m_s = mc & (ahead < length)
        m_p = m_s
        if ORDER:
            p = p_next
            if not EACH:
                m_p = m_p & (p >= 0)
            p_next = tl.load(order_p + (t0 + 2 * G), mask=ahead + G < length, other=-1)
        u_next = tl.load(u_p + (p if U_TOKENS else ahead).to(tl.int64) * u_s, mask=m_p if U_TOKENS else m_s, other=0.0)
        d_next = tl.load(d_p + (p if D_TOKENS else ahead).to(tl.int64) * d_s, mask=m_p if D_TOKENS else m_s, other=0.0)
        if HAS_Z:
            z_now = z_next.to(tl.float32)
            z_next = tl.load(z_p + ahead.to(tl.int64) * z_s, mask=m_s, other=0.0)
        if not (CONST_B and CONST_C):
            B_now = B_next
            row_next = row_p + (zero + tl.minimum(t0 + G, padded - G)) * ROW
            B_next = slab(row_next, g, 0, PARTS, S, G)
            C_now = B_now
            if PARTS == 2:
                C_now = C_next
                C_next = slab(row_next, g, 1, PARTS, S, G)
            if NEAR > 0:  # a line of every 32 bytes a lane; the registers above are filled late
                far = (row_p + (zero + tl.minimum(t0 + 2 * G, padded - G)) * ROW).to(tl.int64) + lane * 32
                prefetch(far, lane * 8 < G * ROW, NEAR)

        s = log2_step_sizes(d, bias_c, t < length, SOFTPLUS, PRECISE, False, 1)
        su = s * (x * LN2)
        if KEEP:
            if t0 % EVERY == 0:
                for i in tl.static_range(S):  # one by one: as a tile the compiler turns them round in shared memory
                    tl.store(saved_p + ((zero + t0 // EVERY) * NP + i) * channels, pick(h, i, tl.arange(0, S)[:, None]),
                             mask=mc)  # fmt: skip
        shares = tl.zeros([G, 32 * W], tl.float32)
        for j in tl.static_range(G):
            if not CONST_B:
                B_n = of_step(B_now, j, 0, PARTS, S, G)
            if not CONST_C:
                C_n = of_step(C_now, j, 1, PARTS, S, G)
            h = ex2(from_lane(s, j, G)[None, :] * a) * h + from_lane(su, j, G)[None, :] * B_n
            shares = tl.where(og[:, None] == j, tl.sum(h * C_n, 0)[None, :], shares)
        out = own_sums(shares, G)
        if HAS_D:
            out += D_c * x
        if HAS_Z:
            out = out * z_now * sigmoid(z_now)
        tl.store(y_at, out, mask=m_now)
    if LAST:
        tl.store(last + own, h, mask=mn)
