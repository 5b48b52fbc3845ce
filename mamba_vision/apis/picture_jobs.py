"""Many files, one after another: one that fails is reported and does not stop the others, with progress."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Job:
    """Something to make of files.

    Attributes:
        sources: files that it is made of; the first one names the job.
        target: file that is made.
        work: makes it and says what it did; takes a function of steps done and all steps.
    """

    sources: tuple[Path, ...]
    target: Path
    work: Callable[[Callable[[int, int], None]], str]


def run_jobs(jobs: Sequence[Job], console: Console, skip_existing: bool = False) -> dict[Path, str]:
    """Do them all.

    Args:
        skip_existing: leave those whose target is there.

    Returns:
        First source to reason, of those that failed.
    """
    failures: dict[Path, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        everything = bars.add_task("pictures", total=len(jobs), visible=len(jobs) > 1)
        for number, job in enumerate(jobs, start=1):
            source = job.sources[0]
            label = f"[{number}/{len(jobs)}] {source}"
            if skip_existing and job.target.is_file():
                console.print(f"{label}: {job.target} is there", markup=False)
                bars.advance(everything)
                continue
            task = bars.add_task(source.name, total=None)
            start = time.perf_counter()
            try:
                for one in job.sources:
                    if job.target.resolve() == one.resolve():
                        raise ValueError(f"{one}: the result would overwrite it; choose another folder with --out")
                said = job.work(lambda done, total, task=task: bars.update(task, completed=done, total=total))
            except Exception as error:  # whatever it is: the other files are still to be done
                failures[source] = _explain(error).removeprefix(f"{source}: ")
                console.print(f"{label}: failed: {failures[source]}", markup=False, style="red")
            else:
                seconds = time.perf_counter() - start
                console.print(f"{label}: {said}, {job.target} ({seconds:.1f} s)", markup=False)
            bars.remove_task(task)
            bars.advance(everything)
    return failures


def _explain(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "too little memory: try a smaller --tile"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ValueError | OSError | ImportError) else f"{type(error).__name__}: {text}"
