"""Sum and norm, rows of channels: forward reads and writes every element once, backward likewise."""

import triton
import triton.language as tl

from mamba_vision.kernels.triton_common import after_previous


@triton.jit
def forward_rows(
    x, residual, weight, bias, normed, total, rows, channels, x_r, r_r,
    EPS: tl.constexpr, CENTRED: tl.constexpr, HAS_RESIDUAL: tl.constexpr, HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr, SUM: tl.constexpr, TOGETHER: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    after_previous(OVERLAP)
    row = (tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER)).to(tl.int64)[:, None]
    c = tl.arange(0, BLOCK)[None, :]
    mask = (row < rows) & (c < channels)
    v = tl.load(x + row * x_r + c, mask=mask, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        v += tl.load(residual + row * r_r + c, mask=mask, other=0.0).to(tl.float32)
    if SUM:
        rounded = v.to(total.dtype.element_ty)
        tl.store(total + row * channels + c, rounded, mask=mask)
        v = rounded.to(tl.float32)
    if CENTRED:
        v = tl.where(mask, v - (tl.sum(v, 1) / channels)[:, None], 0.0)
    y = v * tl.rsqrt(tl.sum(v * v, 1) / channels + EPS)[:, None]
    if HAS_WEIGHT:
        y = y * tl.load(weight + c, mask=c < channels, other=0.0).to(tl.float32)
    if HAS_BIAS:
        y = y + tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)
    tl.store(normed + row * channels + c, y, mask=mask)


@triton.jit
def backward_rows(
    grad, grad_total, total, weight, dhidden, dresidual, partial, rows, channels, each, g_r, gt_r, x_r,
    EPS: tl.constexpr, CENTRED: tl.constexpr, HAS_TOTAL: tl.constexpr, HAS_WEIGHT: tl.constexpr, TWO: tl.constexpr,
    TOGETHER: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """A program has `each` rows; partial (program, 2, channels): its sums for the weight and the bias."""
    after_previous(OVERLAP)
    pid = tl.program_id(0)
    c = tl.arange(0, BLOCK)[None, :]
    mc = c < channels
    w = tl.full([1, BLOCK], 1.0, tl.float32)
    if HAS_WEIGHT:
        w = tl.load(weight + c, mask=mc, other=0.0).to(tl.float32)
    dweight = tl.zeros([TOGETHER, BLOCK], tl.float32)
    dbias = tl.zeros([TOGETHER, BLOCK], tl.float32)
    first = pid.to(tl.int64) * each
    for i in range(0, each, TOGETHER):
        row = (first + i + tl.arange(0, TOGETHER))[:, None]
        mask = (row < rows) & mc
        g = tl.load(grad + row * g_r + c, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(total + row * x_r + c, mask=mask, other=0.0).to(tl.float32)
        if CENTRED:
            v = tl.where(mask, v - (tl.sum(v, 1) / channels)[:, None], 0.0)
        scale = tl.rsqrt(tl.sum(v * v, 1) / channels + EPS)[:, None]
        unit = v * scale
        weighted = g * w
        dx = weighted - unit * (tl.sum(unit * weighted, 1) / channels)[:, None]
        if CENTRED:
            dx -= (tl.sum(weighted, 1) / channels)[:, None]
        dx *= scale
        if HAS_TOTAL:
            dx += tl.load(grad_total + row * gt_r + c, mask=mask, other=0.0).to(tl.float32)
        tl.store(dhidden + row * channels + c, dx, mask=mask)
        if TWO:
            tl.store(dresidual + row * channels + c, dx, mask=mask)
        dweight += g * unit
        dbias += g
    at = partial + pid.to(tl.int64) * 2 * channels + c
    tl.store(at, tl.sum(dweight, 0)[None, :], mask=mc)
    tl.store(at + channels, tl.sum(dbias, 0)[None, :], mask=mc)


@triton.jit
def sum_partials(partial, dweight, dbias, n, channels, ROWS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """Σ of n rows of partial (n, 2, channels); the second half of the programs adds up for the bias."""
    after_previous(OVERLAP)
    half = tl.cdiv(channels, BLOCK)
    pid = tl.program_id(0)
    c = (pid % half) * BLOCK + tl.arange(0, BLOCK)
    source = partial + (pid // half) * channels + c
    acc = tl.zeros([ROWS, BLOCK], tl.float32)
    for i in range(0, n, ROWS):
        r = i + tl.arange(0, ROWS)
        mask = (r < n)[:, None] & (c < channels)[None, :]
        acc += tl.load(source[None, :] + r[:, None] * (2 * channels), mask=mask, other=0.0)
    if pid < half:
        tl.store(dweight + c, tl.sum(acc, 0), mask=c < channels)
    else:
        tl.store(dbias + c, tl.sum(acc, 0), mask=c < channels)
