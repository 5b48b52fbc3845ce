"""Clocks of the benchmarks: on the device, on the host, and both as a program sees them; what they ran on."""

import platform
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter, process_time

import torch

Run = Callable[[], object]


def machine_line(device: str) -> str:
    """What a benchmark ran on: chip, PyTorch, Triton, Python."""
    try:
        import triton

        compiler = f"Triton {triton.__version__}"
    except ImportError:
        compiler = "no Triton"
    chip = torch.cuda.get_device_name() if device == "cuda" else (platform.processor() or platform.machine())
    return f"{chip}, PyTorch {torch.__version__}, {compiler}, Python {platform.python_version()}"


def device_time(runs: Sequence[Run], repeats: int) -> float:
    """Median microseconds that a call takes on the GPU.

    Events stand around each call; a pause on the device before it lets the host run ahead, as it does in a real model.

    Args:
        runs: the same work over inputs of their own, taken in turns so that no cache answers.
        repeats: timed calls.
    """
    for run in [*runs, *runs]:
        run()
    torch.cuda.synchronize()
    start = perf_counter()
    runs[0]()
    pause = int(2e9 * (1.5 * (perf_counter() - start) + 5e-4))  # cycles, at 2 GHz
    torch.cuda.synchronize()
    events = []
    for i in range(repeats):
        torch.cuda._sleep(pause)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        runs[i % len(runs)]()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events) * 1e3


def host_time(run: Run) -> float:
    """Median microseconds until a call returns, the work on the GPU still under way."""
    times = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return statistics.median(times) * 1e6


def cpu_time(run: Run, repeats: int) -> float:
    """Median microseconds of a call on the CPU: of CPU time where there is one thread, else on the clock."""
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return statistics.median(times) * 1e6


def throughput_time(runs: Sequence[Run], repeats: int) -> float:
    """Microseconds a call on the GPU as a program sees it that calls again and again."""
    torch.cuda.synchronize()
    start = perf_counter()
    for i in range(repeats):
        runs[i % len(runs)]()
    torch.cuda.synchronize()
    return (perf_counter() - start) / repeats * 1e6
