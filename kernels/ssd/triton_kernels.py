"""The Mamba-2 recurrence in blocks of Q steps on tensor cores, forward and backward (arXiv 2405.21060, section 6).

A program has one chunk of one head: steps [Q], the head's inputs [Q, P], B and C [Q, N], states [P, N]. With `cum` the
running sum of s A inside the chunk, a step r reaches step t >= r with exp(cum_t - cum_r). Chunks are bound by the
states between them, which `pass_states` adds up. `segment` (b, length) says which of several packed sequences a step
belongs to: nothing passes from one to another. Products of half-precision inputs run in tf32, of float32 in
float32 (PRODUCT).
"""

import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import after_previous


@triton.jit
def chunk_of(
    step, A, segment, b, h, first, length, s_b, s_l, s_h, HAS_SEGMENT: tl.constexpr, Q: tl.constexpr
):  # fmt: skip
    """Steps s [Q] (zero behind the end), cum [Q], the segments of the steps, before the chunk and at its end."""
    t = first + tl.arange(0, Q)
    inside = t < length
    s = tl.load(step + b * s_b + t * s_l + h * s_h, mask=inside, other=0.0).to(tl.float32)
    cum = tl.cumsum(s * tl.load(A + h), 0)
    if HAS_SEGMENT:
        at = segment + b * length
        own = tl.load(at + tl.minimum(t, length - 1))
        before = tl.load(at + tl.maximum(first - 1, 0))
        before = tl.where(first > 0, before, 0)
        end = tl.load(at + tl.minimum(first + Q, length) - 1)
    else:
        own = tl.zeros([Q], tl.int32)
        before = 0
        end = 0
    return s, cum, own, before, end


@triton.jit
def rows(x, b, h, first, length, x_b, x_l, x_h, x_n, WIDTH: tl.constexpr, W: tl.constexpr, Q: tl.constexpr):
    """[Q, W] of x (b, length, h, WIDTH) in float32, zeros outside."""
    t = first + tl.arange(0, Q)
    c = tl.arange(0, W)
    at = x + b * x_b + t.to(tl.int64)[:, None] * x_l + h * x_h + c[None, :] * x_n
    return tl.load(at, mask=(t < length)[:, None] & (c < WIDTH)[None, :], other=0.0).to(tl.float32)


@triton.jit
def state_pointers(
    states, b, chunk, h, n_chunks, H, P: tl.constexpr, N: tl.constexpr, PB: tl.constexpr, NB: tl.constexpr
):  # fmt: skip
    p = tl.arange(0, PB)[:, None]
    n = tl.arange(0, NB)[None, :]
    return states + ((b * n_chunks + chunk) * H + h) * (P * N) + p * N + n, (p < P) & (n < N)


@triton.jit
def between(cum, own, HAS_SEGMENT: tl.constexpr, Q: tl.constexpr):
    """exp(cum_t - cum_r) for r <= t of one segment, else zero; [t, r]."""
    t = tl.arange(0, Q)
    allowed = t[:, None] >= t[None, :]
    if HAS_SEGMENT:
        allowed = allowed & (own[:, None] == own[None, :])
    return tl.where(allowed, tl.exp(tl.where(allowed, cum[:, None] - cum[None, :], 0.0)), 0.0)


@triton.jit
def added_states(
    x, step, A, B, segment, added, survives, length, n_chunks, H, per_group,
    x_b, x_l, x_h, x_n, s_b, s_l, s_h, b_b, b_l, b_g, b_n,
    P: tl.constexpr, N: tl.constexpr, PB: tl.constexpr, NB: tl.constexpr, Q: tl.constexpr, FROM_START: tl.constexpr,
    HAS_SEGMENT: tl.constexpr, PRODUCT: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """What a chunk adds to the state behind it, Σ_r exp(cum_end - cum_r) s_r x_r B_r; and its whole decay.

    FROM_START (for backward, x the gradient of y and B the C): Σ_t exp(cum_t) x_t B_t instead.
    """
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    chunk = pid % n_chunks
    h = (pid // n_chunks) % H
    b = (pid // n_chunks // H).to(tl.int64)
    first = chunk * Q
    s, cum, own, before, end = chunk_of(step, A, segment, b, h, first, length, s_b, s_l, s_h, HAS_SEGMENT, Q)
    total = tl.sum(tl.where(tl.arange(0, Q) == Q - 1, cum, 0.0), 0)
    x_t = rows(x, b, h, first, length, x_b, x_l, x_h, x_n, P, PB, Q)
    B_t = rows(B, b, h // per_group, first, length, b_b, b_l, b_g, b_n, N, NB, Q)
    if FROM_START:
        weight = tl.exp(cum)
        if HAS_SEGMENT:
            weight = tl.where(own == before, weight, 0.0)
    else:
        weight = tl.exp(total - cum) * s
        if HAS_SEGMENT:
            weight = tl.where(own == end, weight, 0.0)
    state = tl.dot(tl.trans(x_t * weight[:, None]), B_t, input_precision=PRODUCT)
    at, mask = state_pointers(added, b, chunk, h, n_chunks, H, P, N, PB, NB)
    tl.store(at, state, mask=mask)
    decay = tl.exp(total)
    if HAS_SEGMENT:
        decay = tl.where(end == before, decay, 0.0)
    tl.store(survives + (b * n_chunks + chunk) * H + h, decay)


@triton.jit
def pass_states(
    states, survives, first, last, n_chunks, H, size, REVERSED: tl.constexpr, HAS_FIRST: tl.constexpr,
    BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """In place: from what every chunk adds to what enters it (REVERSED: from behind); `last` leaves them all."""
    after_previous(OVERLAP)
    tiles = tl.cdiv(size, BLOCK)
    pid = tl.program_id(0)
    i = (pid % tiles) * BLOCK + tl.arange(0, BLOCK)
    h = (pid // tiles) % H
    b = (pid // tiles // H).to(tl.int64)
    mask = i < size
    state = tl.zeros([BLOCK], tl.float32)
    if HAS_FIRST:
        state = tl.load(first + (b * H + h) * size + i, mask=mask, other=0.0)
    for k in range(n_chunks):
        chunk = n_chunks - 1 - k if REVERSED else k
        place = (b * n_chunks + chunk) * H + h
        own = tl.load(states + place * size + i, mask=mask, other=0.0)
        tl.store(states + place * size + i, state, mask=mask)
        state = tl.load(survives + place) * state + own
    tl.store(last + (b * H + h) * size + i, state, mask=mask)


@triton.jit
def outputs(
    x, step, A, B, C, segment, entering, y, length, n_chunks, H, per_group,
    x_b, x_l, x_h, x_n, s_b, s_l, s_h, b_b, b_l, b_g, b_n, c_b, c_l, c_g, c_n,
    P: tl.constexpr, N: tl.constexpr, PB: tl.constexpr, NB: tl.constexpr, Q: tl.constexpr, HAS_SEGMENT: tl.constexpr,
    PRODUCT: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """y (b, length, h, P) contiguous, from the states that enter the chunks."""
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    chunk = pid % n_chunks
    h = (pid // n_chunks) % H
    b = (pid // n_chunks // H).to(tl.int64)
    first = chunk * Q
    s, cum, own, before, _ = chunk_of(step, A, segment, b, h, first, length, s_b, s_l, s_h, HAS_SEGMENT, Q)
    x_t = rows(x, b, h, first, length, x_b, x_l, x_h, x_n, P, PB, Q)
    B_t = rows(B, b, h // per_group, first, length, b_b, b_l, b_g, b_n, N, NB, Q)
    C_t = rows(C, b, h // per_group, first, length, c_b, c_l, c_g, c_n, N, NB, Q)
    weight = between(cum, own, HAS_SEGMENT, Q) * tl.dot(C_t, tl.trans(B_t), input_precision=PRODUCT)
    out = tl.dot(weight, x_t * s[:, None], input_precision=PRODUCT)
    at, mask = state_pointers(entering, b, chunk, h, n_chunks, H, P, N, PB, NB)
    S = tl.load(at, mask=mask, other=0.0)
    start = tl.exp(cum)
    if HAS_SEGMENT:
        start = tl.where(own == before, start, 0.0)
    out += start[:, None] * tl.dot(C_t, tl.trans(S), input_precision=PRODUCT)
    t = first + tl.arange(0, Q)
    p = tl.arange(0, PB)
    to = y + ((b * length + t.to(tl.int64)[:, None]) * H + h) * P + p[None, :]
    tl.store(to, out, mask=(t < length)[:, None] & (p < P)[None, :])


@triton.jit
def gradients(
    grad, x, step, A, B, C, segment, entering, leaving, dx, dstep, dB, dC, dA, length, n_chunks, H, per_group,
    g_b, g_l, g_h, g_n, x_b, x_l, x_h, x_n, s_b, s_l, s_h, b_b, b_l, b_g, b_n, c_b, c_l, c_g, c_n,
    P: tl.constexpr, N: tl.constexpr, PB: tl.constexpr, NB: tl.constexpr, Q: tl.constexpr, HAS_SEGMENT: tl.constexpr,
    PRODUCT: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """dx like y; dstep (b, length, h); dB, dC (b, length, h, N), a head each; dA (b, chunk, h): all contiguous.

    `entering` holds the states before the chunks, `leaving` the gradients of those behind them.
    """
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    chunk = pid % n_chunks
    h = (pid // n_chunks) % H
    b = (pid // n_chunks // H).to(tl.int64)
    first = chunk * Q
    s, cum, own, before, end = chunk_of(step, A, segment, b, h, first, length, s_b, s_l, s_h, HAS_SEGMENT, Q)
    o = tl.arange(0, Q)
    total = tl.sum(tl.where(o == Q - 1, cum, 0.0), 0)
    start, to_end, survives = tl.exp(cum), tl.exp(total - cum), tl.exp(total)
    if HAS_SEGMENT:
        start = tl.where(own == before, start, 0.0)
        to_end = tl.where(own == end, to_end, 0.0)
        survives = tl.where(end == before, survives, 0.0)
    g = rows(grad, b, h, first, length, g_b, g_l, g_h, g_n, P, PB, Q)
    x_t = rows(x, b, h, first, length, x_b, x_l, x_h, x_n, P, PB, Q)
    B_t = rows(B, b, h // per_group, first, length, b_b, b_l, b_g, b_n, N, NB, Q)
    C_t = rows(C, b, h // per_group, first, length, c_b, c_l, c_g, c_n, N, NB, Q)
    at, mask = state_pointers(entering, b, chunk, h, n_chunks, H, P, N, PB, NB)
    S = tl.load(at, mask=mask, other=0.0)
    at, mask = state_pointers(leaving, b, chunk, h, n_chunks, H, P, N, PB, NB)
    G = tl.load(at, mask=mask, other=0.0)
    xs = x_t * s[:, None]

    L = between(cum, own, HAS_SEGMENT, Q)
    weight = L * tl.dot(C_t, tl.trans(B_t), input_precision=PRODUCT)  # [t, r]
    dweight = tl.dot(g, tl.trans(xs), input_precision=PRODUCT)
    dscores = dweight * L
    GB = tl.dot(B_t, tl.trans(G), input_precision=PRODUCT) * to_end[:, None]  # [r, P]
    dxs = tl.dot(tl.trans(weight), g, input_precision=PRODUCT) + GB
    gS = tl.dot(g, S, input_precision=PRODUCT) * start[:, None]  # [t, N]
    dC_t = tl.dot(dscores, B_t, input_precision=PRODUCT) + gS
    dB_t = tl.dot(tl.trans(dscores), C_t, input_precision=PRODUCT)
    dB_t += tl.dot(xs, G, input_precision=PRODUCT) * to_end[:, None]

    # gradients of the exponents: of cum_t - cum_r, of cum_t from the start, of cum_end - cum_r, of cum_end
    inner = dweight * weight
    dcum = tl.sum(inner, 1) - tl.sum(inner, 0) + tl.sum(C_t * gS, 1)
    behind = tl.sum(xs * GB, 1)
    # step t is part of cum_r for r >= t; of what decays to the end, it is part for r < t
    ds_A = tl.cumsum(dcum, 0, reverse=True) + tl.cumsum(behind, 0) - behind
    ds_A += survives * tl.sum(tl.sum(G * S, 1), 0)
    ds = ds_A * tl.load(A + h) + tl.sum(dxs * x_t, 1)

    t = first + o
    p = tl.arange(0, PB)
    n = tl.arange(0, NB)
    inside = t < length
    row = (b * length + t.to(tl.int64)) * H + h
    tl.store(dx + row[:, None] * P + p[None, :], dxs * s[:, None], mask=inside[:, None] & (p < P)[None, :])
    tl.store(dstep + row, ds, mask=inside)
    m_n = inside[:, None] & (n < N)[None, :]
    tl.store(dB + row[:, None] * N + n[None, :], dB_t, mask=m_n)
    tl.store(dC + row[:, None] * N + n[None, :], dC_t, mask=m_n)
    tl.store(dA + (b * n_chunks + chunk) * H + h, tl.sum(ds_A * s, 0))
