"""The same work on many cases: in threads, within the memory at hand, with a progress bar.

Threads, not processes: gzip, NumPy and SciPy release Python's lock, nothing has to be pickled, and no worker can be
killed in silence when memory runs out.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mamba_vision.utils.memory import available_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int = 1,
    title: str = "",
    progress: bool = False,
    console: Console | None = None,
) -> list[Result]:
    """[work(item) for item in items], `workers` at a time; the first error stops the rest and is raised.

    `progress` draws a bar under `title` with cases done, time gone and time left (on a terminal; else one line at
    the end).

    Raises:
        ValueError: fewer than one worker; and whatever `work` raises.
    """
    if workers < 1:
        raise ValueError(f"workers: expected 1 or more, found {workers}")
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    results: list[Any] = [None] * len(items)
    with Progress(*columns, console=console, disable=not progress) as bar:
        task = bar.add_task(title, total=len(items))
        with ThreadPoolExecutor(max_workers=workers) as pool:
            futures = {pool.submit(work, item): index for index, item in enumerate(items)}
            try:
                for future in as_completed(futures):
                    results[futures[future]] = future.result()
                    bar.advance(task)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return results


def default_workers(sizes: Iterable[int] = ()) -> int:
    """How many cases to work on at once: a core each, and free memory for all.

    Args:
        sizes: bytes that one case may take at its peak; the largest counts.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    largest = max(sizes, default=0)
    if not largest:
        return max(1, cores)
    return max(1, min(cores, int(available_memory() * 0.7 // largest)))
