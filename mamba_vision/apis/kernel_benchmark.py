"""The scan kernels against the floor of the machine and published times; on a CPU, its backends side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mamba_vision.apis.benchmark_timing import Run, cpu_time, device_time, host_time
from mamba_vision.kernels import ordered_scan, selective_scan, use_backend
from mamba_vision.registry import SCAN_ORDERS

# name: batch, channels, length, states, gate
SCANS = {
    "vim_s_224": (128, 768, 197, 16, True),
    "vim_t_1248_seg": (2, 384, 6084, 16, True),
    "segmamba_s0_b2": (2, 96, 262144, 16, True),
    "segmamba_s1_b2": (2, 192, 32768, 16, True),
    "umamba_3d_b1": (1, 96, 110592, 16, True),
}
# name: batch, channels, side of the grid, states; four orders
ORDERED = {
    "vmamba_t_s1": (128, 96, 56, 1),
    "vmamba_t_s2": (128, 192, 28, 1),
    "vmamba_t_s3": (128, 384, 14, 1),
    "vmamba_t_s4": (128, 768, 7, 1),
    "mambair_b4": (4, 360, 64, 16),
}
SMALL_SCANS = {
    "small": (2, 384, 197, 16, True),
    "small_n1": (2, 96, 784, 1, False),
    "vim_t": (1, 384, 197, 16, True),
    "segmamba_4k": (1, 96, 4096, 16, True),
    "segmamba_32k": (1, 96, 32768, 16, True),
}
SMALL_ORDERED = {"small": (1, 96, 14, 1)}
OPS = ("selective_scan", "ordered_scan")
_TABLES = {
    ("selective_scan", "cuda"): SCANS,
    ("ordered_scan", "cuda"): ORDERED,
    ("selective_scan", "cpu"): SMALL_SCANS,
    ("ordered_scan", "cpu"): SMALL_ORDERED,
}
_LONG = 1000  # steps that the plain loop, differentiated by autograd, is not asked for
# An H200: bytes/s of a copy, special functions/s, issue slots/s of the multiply-add pipe (docs/performance.md)
_BANDWIDTH, _SPECIAL, _SLOTS = 4.25e12, 132 * 16 * 1.98e9, 132 * 128 * 1.98e9
_SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}

Shape = tuple[int, ...]
Row = dict[str, Any]


def benchmark_op(
    op: str,
    device: str,
    dtype: torch.dtype,
    shapes: Sequence[str] | None = None,
    backend: str | None = None,
    repeats: int = 30,
    published: Mapping[str, Mapping[str, float]] | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Row]:
    """Time an op forward, and forward with backward, at the shapes of the published systems.

    On a GPU each row has the least time that the machine allows (`*_floor_us`) and, where `published` knows the shape,
    published time over ours (`*_ratio`). On a CPU the shapes are small and every backend is timed, in float32; ratios
    are the portable backend's time over the other's.

    Args:
        op: of `OPS`.
        device: 'cuda' or 'cpu'.
        dtype: of the inputs on a GPU.
        shapes: names of shapes; None: all of the device's table. Those of the other tables are passed over.
        backend: of the kernels; None: the device's own on a GPU, all on a CPU.
        repeats: timed calls; a tenth of it on a CPU.
        published: by shape and precision ('vim_s_224_bf16'): forward_us, backward_us, extra_MiB.
        say: takes a line about a backend that is missing.

    Returns:
        Rows with op, shape, backend, forward_us and forward_backward_us (medians, microseconds); on a GPU also
        host_us (until a call returns) and extra_MiB (memory of forward and backward beside the inputs).

    Raises:
        ValueError: there is no such op or shape.
    """
    if op not in OPS:
        raise ValueError(f"op: found {op!r}, expected one of {', '.join(OPS)}")
    known = {name for table in _TABLES.values() for name in table}
    if unknown := set(shapes or ()) - known:
        raise ValueError(f"shapes: unknown {', '.join(sorted(unknown))}; expected some of {', '.join(sorted(known))}")
    return _rows(op, device, dtype, shapes, backend, repeats, published or {}, say)


def _rows(
    op: str,
    device: str,
    dtype: torch.dtype,
    shapes: Sequence[str] | None,
    backend: str | None,
    repeats: int,
    published: Mapping[str, Mapping[str, float]],
    say: Callable[[str], None],
) -> Iterator[Row]:
    dtype = torch.float32 if device == "cpu" else dtype
    prepare = _prepare_scan if op == "selective_scan" else _prepare_order
    for name, shape in _TABLES[op, device].items():
        if shapes and name not in shapes:
            continue
        portable = None
        for used in [backend] if device == "cuda" or backend else _cpu_backends(shape, say):
            with use_backend(used):
                pairs = [prepare(shape, dtype, device) for _ in range(3 if device == "cuda" else 1)]
                row = {"op": op, "shape": name, "backend": used or "triton", **_measured(pairs, device, repeats)}
            del pairs
            if device == "cuda":
                row |= floors(op, shape, dtype.itemsize)
                row |= _ratios(row, published.get(f"{name}_{_SHORT[dtype]}"))
            elif used == "portable":
                portable = row
            else:
                row |= _ratios(row, portable)
            yield row


def floors(op: str, shape: Shape, size: int) -> dict[str, float]:
    """Least microseconds of an H200, forward and forward with backward.

    Each input is read once and each output written once at the speed of a copy; exponentials; multiply-adds: the
    largest of the three counts.

    Args:
        op: of `OPS`.
        shape: as the op's table has it.
        size: bytes of a number.
    """
    if op == "selective_scan":
        batch, channels, length, states, gate = shape
        orders, read, written, grads = 1, 2 + gate, 1, 2 + gate
    else:
        batch, channels, side, states = shape
        length, orders, read, written, grads = side * side, 4, 1 + 4, 1, 1 + 4
    rows = batch * length * channels
    small = batch * orders * length * 2 * states * size
    elements = rows * orders * states
    forward = max(
        (rows * (read + written) * size + small) / _BANDWIDTH,
        (elements + 2 * rows * orders) / _SPECIAL,
        4 * elements / _SLOTS,
    )
    backward = max(
        (rows * (read + 1 + grads) * size + 2 * small) / _BANDWIDTH,
        (elements + 3 * rows * orders) / _SPECIAL,
        13 * elements / _SLOTS,
    )
    return {"forward_floor_us": forward * 1e6, "forward_backward_floor_us": (forward + backward) * 1e6}


def _cpu_backends(shape: Shape, say: Callable[[str], None]) -> list[str]:
    from mamba_vision.kernels.native import BuildError, build_torch_library

    backends = ["portable"]
    try:
        build_torch_library()
        backends.append("native")
    except BuildError as error:
        say(f"without the backend native: {error}")
    return backends if shape[2] > _LONG else [*backends, "reference"]


def _prepare_scan(shape: Shape, dtype: torch.dtype, device: str) -> tuple[Run, Run]:
    """Forward, and forward with backward, over inputs of their own."""
    batch, channels, length, states, gate = shape

    def tokens(scale: float = 1.0) -> Tensor:
        values = torch.randn(batch, length, channels, device=device, dtype=dtype) * scale
        return values.transpose(1, 2).requires_grad_()

    def by_step() -> Tensor:
        return torch.randn(batch, 1, length, states, device=device, dtype=dtype).transpose(2, 3).requires_grad_()

    A = (-torch.rand(channels, states, device=device) * 8 - 0.1).requires_grad_()
    D = torch.randn(channels, device=device, requires_grad=True)
    bias = (torch.rand(channels, device=device) - 4).requires_grad_()
    inputs = (tokens(), tokens(0.5), A, by_step(), by_step(), D, tokens() if gate else None, bias)
    return _run_pair(lambda: selective_scan(*inputs, delta_softplus=True), inputs, tokens().detach())


def _prepare_order(shape: Shape, dtype: torch.dtype, device: str) -> tuple[Run, Run]:
    batch, channels, side, states = shape
    L, K = side * side, 4
    order = SCAN_ORDERS.build(dict(type="cross"))((side, side), device).indices.int()

    def made(*size: int) -> Tensor:
        return torch.randn(*size, device=device, dtype=dtype).requires_grad_()

    A = (-torch.rand(K, channels, states, device=device) * 8 - 0.1).requires_grad_()
    D = torch.randn(K, channels, device=device, requires_grad=True)
    bias = (torch.rand(K, channels, device=device) - 4).requires_grad_()
    x, dt = made(batch, L, channels), made(batch, K, L, channels)
    B, C = made(batch, K, L, states), made(batch, K, L, states)
    inputs = (x, dt, A, B, C, D, bias)
    return _run_pair(lambda: ordered_scan(x, order, dt, None, A, B, C, D, bias), inputs, torch.randn_like(x))


def _run_pair(forward: Callable[[], Tensor], inputs: Sequence[Tensor | None], grad: Tensor) -> tuple[Run, Run]:
    leaves = [tensor for tensor in inputs if tensor is not None]

    def infer() -> Tensor:
        with torch.no_grad():
            return forward()

    def train() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), leaves, grad)

    return infer, train


def _measured(pairs: Sequence[tuple[Run, Run]], device: str, repeats: int) -> dict[str, float]:
    found = {}
    for i, key in enumerate(("forward_us", "forward_backward_us")):
        runs = [pair[i] for pair in pairs]
        found[key] = device_time(runs, repeats) if device == "cuda" else cpu_time(runs[0], max(1, repeats // 10))
    if device == "cuda":
        train = pairs[0][1]
        found["host_us"] = host_time(train)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train()
        found["extra_MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


def _ratios(row: Row, published: Mapping[str, float] | None) -> dict[str, float]:
    """Published time over ours."""
    if not published:
        return {}
    both = published.get("forward_backward_us") or published["forward_us"] + published["backward_us"]
    found = {
        "forward_ratio": published["forward_us"] / row["forward_us"],
        "forward_backward_ratio": both / row["forward_backward_us"],
    }
    if "extra_MiB" in published:
        found["published_extra_MiB"] = published["extra_MiB"]
    return found
