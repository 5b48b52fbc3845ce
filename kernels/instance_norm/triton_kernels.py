"""Instance norm over planes (batch, channel) of `size` values that are split into chunks, one a program.

A tile is ROWS positions by BLOCK channels. Channels-last, offset = position * channels + channel; channels-first, a
tile has one channel and offset = channel * size + position.
"""

import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import after_previous


@triton.jit
def place(channels, size, chunks, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """(batch item, chunk, channels of the tile [1, BLOCK], offset of the item) of a program."""
    pid = tl.program_id(0)
    blocks = tl.cdiv(channels, BLOCK)
    c = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    chunk = (pid // blocks) % chunks
    item = (pid // blocks // chunks).to(tl.int64)
    return item, chunk, c, item * size * channels


@triton.jit
def offsets(p, c, channels, size, LAST: tl.constexpr):
    """Offsets [ROWS, BLOCK] within an item of the positions p [ROWS, 1] (int64) of the channels c [1, BLOCK]."""
    if LAST:
        return p * channels + c
    else:
        return c.to(tl.int64) * size + p


@triton.jit
def chunk_moments(
    x, partial, channels, size, chunks, each,
    LAST: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """partial (item, chunk, 2, channels): mean, and sum of squared distances from it, of `each` positions.

    Every element of a tile keeps its own running mean (Welford), so that nothing cancels; they meet at the end.
    """
    after_previous(OVERLAP)
    item, chunk, c, base = place(channels, size, chunks, LAST, BLOCK)
    first = chunk.to(tl.int64) * each
    rows = tl.arange(0, ROWS)[:, None]
    mean = tl.zeros([ROWS, BLOCK], tl.float32)
    squares = tl.zeros([ROWS, BLOCK], tl.float32)
    seen = tl.zeros([ROWS, 1], tl.float32)
    for i in range(0, each, ROWS):
        p = first + i + rows
        here = p < size
        v = tl.load(x + base + offsets(p, c, channels, size, LAST), mask=here & (c < channels), other=0.0)
        step = tl.where(here, v.to(tl.float32) - mean, 0.0)
        mean += step / (i // ROWS + 1)
        squares += step * tl.where(here, v.to(tl.float32) - mean, 0.0)
        seen += tl.where(here, 1.0, 0.0)
    total = tl.minimum(size - first, each).to(tl.float32)
    middle = tl.sum(mean * seen, 0) / total
    far = mean - middle[None, :]
    spread = tl.sum(squares + seen * far * far, 0)
    at = partial + (item * chunks + chunk) * 2 * channels + c
    tl.store(at, middle[None, :], mask=c < channels)
    tl.store(at + channels, spread[None, :], mask=c < channels)


@triton.jit
def meet_moments(
    partial, statistics, channels, size, chunks, each,
    EPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """statistics (item, 2, channels): mean, and 1 / deviation."""
    after_previous(OVERLAP)
    item, _, c, _ = place(channels, size, 1, True, BLOCK)
    source = partial + item * chunks * 2 * channels + c
    mean = tl.zeros([ROWS, BLOCK], tl.float32)
    for i in range(0, chunks, ROWS):
        k = i + tl.arange(0, ROWS)[:, None]
        n = tl.minimum(size - k.to(tl.int64) * each, each).to(tl.float32)
        mean += tl.load(source + k * 2 * channels, mask=(k < chunks) & (c < channels), other=0.0) * (n / size)
    middle = tl.sum(mean, 0)[None, :]
    squares = tl.zeros([ROWS, BLOCK], tl.float32)
    for i in range(0, chunks, ROWS):
        k = i + tl.arange(0, ROWS)[:, None]
        mask = (k < chunks) & (c < channels)
        n = tl.minimum(size - k.to(tl.int64) * each, each).to(tl.float32)
        far = tl.load(source + k * 2 * channels, mask=mask, other=0.0) - middle
        squares += tl.where(mask, n * far * far, 0.0)
        squares += tl.load(source + (k * 2 + 1) * channels, mask=mask, other=0.0)
    variance = tl.sum(squares, 0)[None, :] / size
    at = statistics + item * 2 * channels + c
    tl.store(at, middle, mask=c < channels)
    tl.store(at + channels, tl.rsqrt(variance + EPS), mask=c < channels)


@triton.jit
def scale_of(statistics, weight, bias, item, c, channels, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr):
    """(mean, 1 / deviation, weight, bias) of the tile's channels, [1, BLOCK]."""
    at = statistics + item * 2 * channels + c
    mean = tl.load(at, mask=c < channels, other=0.0)
    scale = tl.load(at + channels, mask=c < channels, other=0.0)
    w, b = scale * 0.0 + 1.0, scale * 0.0
    if HAS_WEIGHT:
        w = tl.load(weight + c, mask=c < channels, other=0.0).to(tl.float32)
    if HAS_BIAS:
        b = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
    return mean, scale, w, b


@triton.jit
def normalize(
    x, weight, bias, residual, statistics, y, channels, size, chunks, each,
    LAST: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, ADDS: tl.constexpr, ACTS: tl.constexpr,
    SLOPE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    after_previous(OVERLAP)
    item, chunk, c, base = place(channels, size, chunks, LAST, BLOCK)
    mean, scale, w, b = scale_of(statistics, weight, bias, item, c, channels, HAS_WEIGHT, HAS_BIAS)
    first = chunk.to(tl.int64) * each
    for i in range(0, each, ROWS):
        p = first + i + tl.arange(0, ROWS)[:, None]
        mask = (p < size) & (c < channels)
        at = base + offsets(p, c, channels, size, LAST)
        out = (tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - mean) * scale * w + b
        if ADDS:
            out += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
        if ACTS:
            out = tl.where(out > 0, out, out * SLOPE)
        tl.store(y + at, out, mask=mask)


@triton.jit
def chunk_sums(
    grad, x, weight, bias, y, statistics, dresidual, partial, channels, size, chunks, each,
    LAST: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, ADDS: tl.constexpr, ACTS: tl.constexpr,
    SLOPE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """partial (item, chunk, 2, channels): Σ of the gradient before the activation, and Σ of it times the normed value.

    With a residual and an activation that gradient is the residual's, and is written for the second pass.
    """
    after_previous(OVERLAP)
    item, chunk, c, base = place(channels, size, chunks, LAST, BLOCK)
    mean, scale, w, b = scale_of(statistics, weight, bias, item, c, channels, HAS_WEIGHT, HAS_BIAS)
    first = chunk.to(tl.int64) * each
    plain = tl.zeros([ROWS, BLOCK], tl.float32)
    with_unit = tl.zeros([ROWS, BLOCK], tl.float32)
    for i in range(0, each, ROWS):
        p = first + i + tl.arange(0, ROWS)[:, None]
        mask = (p < size) & (c < channels)
        at = base + offsets(p, c, channels, size, LAST)
        g = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
        unit = (tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - mean) * scale
        if ACTS:
            if ADDS:
                over = tl.load(y + at, mask=mask, other=0.0).to(tl.float32) > 0
            else:
                over = unit * w + b > 0
            g = tl.where(over, g, g * SLOPE)
            if ADDS:
                rounded = g.to(dresidual.dtype.element_ty)
                tl.store(dresidual + at, rounded, mask=mask)
                g = rounded.to(tl.float32)
        plain += g
        with_unit += tl.where(mask, g * unit, 0.0)
    at = partial + (item * chunks + chunk) * 2 * channels + c
    tl.store(at, tl.sum(plain, 0)[None, :], mask=c < channels)
    tl.store(at + channels, tl.sum(with_unit, 0)[None, :], mask=c < channels)


@triton.jit
def meet_sums(
    partial, sums, channels, size, chunks,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """sums (item, 2, channels): the two sums of all chunks."""
    after_previous(OVERLAP)
    item, _, c, _ = place(channels, size, 1, True, BLOCK)
    source = partial + item * chunks * 2 * channels + c
    plain = tl.zeros([ROWS, BLOCK], tl.float32)
    with_unit = tl.zeros([ROWS, BLOCK], tl.float32)
    for i in range(0, chunks, ROWS):
        k = i + tl.arange(0, ROWS)[:, None]
        mask = (k < chunks) & (c < channels)
        plain += tl.load(source + k * 2 * channels, mask=mask, other=0.0)
        with_unit += tl.load(source + (k * 2 + 1) * channels, mask=mask, other=0.0)
    at = sums + item * 2 * channels + c
    tl.store(at, tl.sum(plain, 0)[None, :], mask=c < channels)
    tl.store(at + channels, tl.sum(with_unit, 0)[None, :], mask=c < channels)


@triton.jit
def differentiate(
    grad, x, weight, bias, statistics, sums, dx, channels, size, chunks, each,
    LAST: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, ACTS: tl.constexpr, SLOPE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """dx = weight / deviation * (g - mean g - unit * mean (g unit))."""
    after_previous(OVERLAP)
    item, chunk, c, base = place(channels, size, chunks, LAST, BLOCK)
    mean, scale, w, b = scale_of(statistics, weight, bias, item, c, channels, HAS_WEIGHT, HAS_BIAS)
    at = sums + item * 2 * channels + c
    plain = tl.load(at, mask=c < channels, other=0.0) / size
    with_unit = tl.load(at + channels, mask=c < channels, other=0.0) / size
    first = chunk.to(tl.int64) * each
    for i in range(0, each, ROWS):
        p = first + i + tl.arange(0, ROWS)[:, None]
        mask = (p < size) & (c < channels)
        here = base + offsets(p, c, channels, size, LAST)
        g = tl.load(grad + here, mask=mask, other=0.0).to(tl.float32)
        unit = (tl.load(x + here, mask=mask, other=0.0).to(tl.float32) - mean) * scale
        if ACTS:
            g = tl.where(unit * w + b > 0, g, g * SLOPE)
        tl.store(dx + here, scale * w * (g - plain - unit * with_unit), mask=mask)
