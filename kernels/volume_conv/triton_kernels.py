"""The convolution as a product of matrices, voxels by taps and channels, of which the left one is never written."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["D", "H", "W", "tiles_d", "tiles_h", "tiles_w"])
def convolve(
    x, w, bias, y, D, H, W, tiles_d, tiles_h, tiles_w,
    CI: tl.constexpr, CO: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, WIDE: tl.constexpr,
    DEEP: tl.constexpr, HAS_BIAS: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """y (batch, d, h, w, CO) of x (batch, d, h, w, CI) and w (27 CI, CO), padding 1.

    A program: WIDE channels of a brick of BD BH BW voxels. Neighbours of a brick's voxels lie in its own lines of the
    cache for most taps. FAR: offsets within an item need 64 bits.
    """
    PARTS: tl.constexpr = (CO + WIDE - 1) // WIDE
    STEPS: tl.constexpr = (CI + DEEP - 1) // DEEP
    pid = tl.program_id(0)
    brick = pid // PARTS
    tile_w = brick % tiles_w
    tile_h = (brick // tiles_w) % tiles_h
    tile_d = (brick // tiles_w // tiles_h) % tiles_d
    item = (brick // tiles_w // tiles_h // tiles_d).to(tl.int64)
    m = tl.arange(0, BD * BH * BW)
    d = tile_d * BD + m // BW // BH
    h = tile_h * BH + (m // BW) % BH
    v = tile_w * BW + m % BW
    whole = (d < D) & (h < H) & (v < W)
    # which of the 27 taps lie inside the volume, a bit each: comparing anew for each takes as long as the products
    in_d = (d > 0).to(tl.int32) | 2 | ((d < D - 1).to(tl.int32) << 2)
    in_h = (h > 0).to(tl.int32) | 2 | ((h < H - 1).to(tl.int32) << 2)
    in_w = (v > 0).to(tl.int32) | 2 | ((v < W - 1).to(tl.int32) << 2)
    plane = tl.where((in_h & 1) > 0, in_w, 0) | (in_w << 3) | (tl.where((in_h & 4) > 0, in_w, 0) << 6)
    inside = tl.where((in_d & 1) > 0, plane, 0) | (plane << 9) | (tl.where((in_d & 4) > 0, plane, 0) << 18)
    inside = tl.where(whole, inside, 0)
    if FAR:
        d = d.to(tl.int64)
    voxel = (d * H + h) * W + v
    k = tl.arange(0, DEEP)
    n = (pid % PARTS) * WIDE + tl.arange(0, WIDE)
    rows = x + item * D * H * W * CI + (voxel * CI)[:, None] + k[None, :]
    acc = tl.zeros([BD * BH * BW, WIDE], tl.float32)
    for step in range(27 * STEPS):
        tap = step // STEPS
        first = (step % STEPS) * DEEP
        shift_d = tap // 9 - 1
        if FAR:
            shift_d = shift_d.to(tl.int64)
        shift = ((shift_d * H + (tap // 3) % 3 - 1) * W + tap % 3 - 1) * CI + first
        mask = (((inside >> tap) & 1) != 0)[:, None]
        if CI % DEEP != 0:
            mask = mask & (first + k < CI)[None, :]
        a = tl.load(rows + shift, mask=mask, other=0.0)
        column = (first + k)[:, None]
        b = tl.load(w + (tap * CI + column) * CO + n[None, :], mask=(column < CI) & (n < CO)[None, :], other=0.0)
        acc = tl.dot(a, b, acc)
    if HAS_BIAS:
        acc += tl.load(bias + n, mask=n < CO, other=0.0).to(tl.float32)[None, :]
    at = y + item * D * H * W * CO + (voxel * CO)[:, None] + n[None, :]
    tl.store(at, acc.to(y.dtype.element_ty), mask=whole[:, None] & (n < CO)[None, :])
