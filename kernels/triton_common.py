"""What the Triton kernels share: fast exponentials, rows held in registers, and sums over the channels of a warp.

The rule on which every scan kernel here rests: the 32 lanes of a warp are 32 channels, and time (or the state index)
lies in a thread's registers. Then the recurrence, its adjoint and every sum over states need no communication. The
compiler chooses that layout by itself as long as it can prove no more than `V` contiguous channels a thread, so row
strides reach a kernel divided by V, unspecialized, and are multiplied back inside.
"""

import os
from functools import cache

import torch
import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
NVIDIA = torch.version.hip is None
# Inline PTX runs neither in the interpreter nor on AMD GPUs: plain expressions stand in for it there.
PTX = tl.constexpr(NVIDIA and not INTERPRETED)
try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # before Triton 3.4
    gdc_wait = gdc_launch_dependents = None
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def after_previous(OVERLAP: tl.constexpr):
    """The first thing that a kernel launched with `overlapping()` does: it waits for what the kernel before wrote, and
    lets the next one come to the same point."""
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def ex2(x):
    """2 ** x, denormals flushed to zero (the forgotten past of a state may as well be zero)."""
    if PTX:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.exp2(x)


@triton.jit
def lg2(x):
    if PTX:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def rcp(x):
    if PTX:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1.0 / x


@triton.jit
def sigmoid(x):
    return rcp(1.0 + ex2(-x * LOG2E))


@triton.jit
def softplus(p, e, PRECISE: tl.constexpr):
    """log(1 + e) with e = exp(p); p itself above 20. Series where 1 + e would round the answer away."""
    if PRECISE:
        r = e * rcp(2.0 + e)  # log(1 + e) = 2 atanh(e / (2 + e))
        r2 = r * r
        small = 2.0 * r * (1.0 + r2 * (0.33333333333 + r2 * (0.2 + r2 * 0.142857142857)))
        log1p = tl.where(e < 0.3, small, lg2(1.0 + e) * LN2)
    else:
        small = e * (1.0 - e * (0.5 - e * (0.33333333333 - e * 0.25)))
        log1p = tl.where(e < 0.03, small, lg2(1.0 + e) * LN2)
    return tl.where(p > 20.0, p, log1p)


@triton.jit
def softplus_log2(q, PRECISE: tl.constexpr):
    """log2(1 + 2 ** q), that is softplus(q ln 2) / ln 2; q itself above 29. For half-precision inputs the series for
    small results ends early: its error of 2e-5 is that of lg2 there."""
    e = ex2(q)
    if PRECISE:
        return softplus(q * LN2, e, True) * LOG2E
    else:
        small = e * (1.4426950408889634 - 0.7213475204444817 * e)
        return tl.where(q > 29.0, q, tl.where(e < 0.0078125, small, lg2(1.0 + e)))


@triton.jit
def widen(x, V: tl.constexpr):
    """To float32; bfloat16 that lies in pairs (V even) by a shift and a mask each pair."""
    if PTX and V % 2 == 0 and x.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=r,=r,r", [x], dtype=tl.int32, is_pure=True, pack=2
        ).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def pick(x, i, rows):
    """Row i (a constant) of axis 0, which lies in registers: folds to a register name.

    The sum runs over integers because x + 0 folds away for them and not for floats.
    """
    return tl.sum(tl.where(rows == i, x.to(tl.int32, bitcast=True), 0), 0).to(tl.float32, bitcast=True)


@triton.jit
def compose(a0, x0, a1, x1):
    """Two steps of h = a h + x as one."""
    return a0 * a1, x0 * a1 + x1


@triton.jit
def prefetch(address, wanted, LEVEL: tl.constexpr):
    """Ask for the memory at int64 addresses, one a thread, to come near: into L1 (LEVEL 1) or L2; no register waits.

    It spares a lone warp most of the latency of what it reads one tile later.
    """
    if PTX:
        if LEVEL == 1:
            tl.inline_asm_elementwise(
                "{ .reg .pred p; setp.ne.s32 p, $2, 0; @p prefetch.global.L1 [$1]; mov.b32 $0, 0; }", "=r,l,r",
                [address, wanted.to(tl.int32)], dtype=tl.int32, is_pure=False, pack=1,
            )  # fmt: skip
        elif LEVEL == 2:
            tl.inline_asm_elementwise(
                "{ .reg .pred p; setp.ne.s32 p, $2, 0; @p prefetch.global.L2 [$1]; mov.b32 $0, 0; }", "=r,l,r",
                [address, wanted.to(tl.int32)], dtype=tl.int32, is_pure=False, pack=1,
            )  # fmt: skip


def _lane_sums_ptx(exact: bool) -> str:
    """PTX: 16 registers, each summed over the 32 lanes of the warp, lane l left with the total of input `v(l)`.

    v(l) = 4 (l % 4) + 2 (l >> 4 & 1) + (l >> 3 & 1). Four tensor-core products with a selection matrix (inputs 16-23:
    element r is 1 on the lanes with l // 4 == r) add up groups of four lanes, each into its own column; three shuffle
    rounds do the rest: 4 + 18 instructions where a butterfly of shuffles takes 62. The tensor core drops the 13 lowest
    mantissa bits of its inputs; `exact` sends these through a second time.
    """
    out = ["{", ".reg .pred p, q;", ".reg .b32 l, m, b<8>, a<4>;", ".reg .f32 s, r, d<4>, h, w;"]
    out += ["mov.u32 l, %laneid;"] + [f"mov.b32 b{i}, ${24 + i};" for i in range(8)]
    out += [f"mov.f32 d{i}, 0f00000000;" for i in range(4)]

    def product(j):
        return (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {d0, d1, d2, d3}, {a0, a1, a2, a3}, "
            f"{{b{2 * j}, b{2 * j + 1}}}, {{d0, d1, d2, d3}};"
        )

    for j in range(4):
        out += [f"mov.b32 a{i}, ${8 + 4 * j + i};" for i in range(4)]
        if exact:
            out += [f"and.b32 a{i}, a{i}, 0xffffe000;" for i in range(4)]
        out += [product(j)]
        if exact:
            for i in range(4):
                out += [f"mov.b32 h, a{i};", f"sub.f32 w, ${8 + 4 * j + i}, h;", f"mov.b32 a{i}, w;"]
            out += [product(j)]
    out += ["and.b32 m, l, 16;", "setp.ne.u32 p, m, 0;", "and.b32 m, l, 8;", "setp.ne.u32 q, m, 0;"]
    for kept, other, pred, mask in (("d0", "d1", "p", 16), ("d2", "d3", "p", 16), ("d0", "d2", "q", 8)):
        out += [
            f"selp.f32 s, {kept}, {other}, {pred};",
            f"selp.f32 {kept}, {other}, {kept}, {pred};",
            f"shfl.sync.bfly.b32 r, s, {mask}, 31, -1;",
            f"add.f32 {kept}, {kept}, r;",
        ]
    out += ["shfl.sync.bfly.b32 r, d0, 4, 31, -1;", "add.f32 $0, d0, r;"]
    out += [f"mov.f32 ${i}, 0f00000000;" for i in range(1, 8)] + ["}"]
    return " ".join(out)


LANE_SUMS = tl.constexpr(_lane_sums_ptx(exact=False))
LANE_SUMS_EXACT = tl.constexpr(_lane_sums_ptx(exact=True))
LANE_SUMS_REGISTERS = tl.constexpr(",".join(["=f"] * 8 + ["f"] * 24))


@triton.jit
def lane_sums(x, y, select, EXACT: tl.constexpr):
    """x, y [8, ..., 32] with rows in registers and the last axis over the lanes: row 0 holds the sums, see above."""
    if EXACT:
        return tl.inline_asm_elementwise(
            LANE_SUMS_EXACT, LANE_SUMS_REGISTERS, [x, y, select], dtype=tl.float32, is_pure=True, pack=8
        )
    else:
        return tl.inline_asm_elementwise(
            LANE_SUMS, LANE_SUMS_REGISTERS, [x, y, select], dtype=tl.float32, is_pure=True, pack=8
        )


@triton.jit
def summed_row(lane):
    """Which of the 16 inputs of `lane_sums` a lane holds the total of."""
    return 4 * (lane % 4) + 2 * ((lane // 16) % 2) + (lane // 8) % 2


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def capped(registers: int | None) -> dict:
    """Launch options: fused multiply-adds whatever Triton's default, and a cap on a thread's registers, so that more
    warps fit (NVIDIA only)."""
    options: dict[str, object] = {"enable_fp_fusion": True}
    return options | {"maxnreg": registers} if registers and PTX.value else options


@cache
def overlapping(device: torch.device) -> dict:
    """Launch options of kernels that begin with `after_previous`: on Hopper and later such a kernel may be put on the
    GPU while the one before it still runs, which spares the gap between them."""
    able = PTX.value and gdc_wait is not None and device.type == "cuda"
    if able and torch.cuda.get_device_capability(device) >= (9, 0):
        return {"OVERLAP": True, "launch_pdl": True}
    return {"OVERLAP": False}


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()
