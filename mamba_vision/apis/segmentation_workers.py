"""A run over several devices: a process for each, which takes case after case from one queue.

A process that dies (killed for memory, a GPU lost) fails the cases it was at; the others go on.
"""

import contextlib
import multiprocessing
import os
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from mamba_vision.apis.segmentation_files import SegmentOptions
from mamba_vision.apis.segmentation_record import RunRecord, device_name, failed_entry
from mamba_vision.apis.segmentation_run import RecordingListener, Reporter, run_cases, skip_finished
from mamba_vision.apis.volume_ensemble import EnsembleSource
from mamba_vision.utils.folder_lock import SEGMENTATION, folder_lock
from mamba_vision.utils.memory import available_memory
from mamba_vision.volumes.scans import ScanFiles

_PATIENCE = 0.5  # seconds between looks at whether all processes live


@dataclass
class _Worker:
    """A process, and the cases that it has begun and not ended."""

    process: BaseProcess
    device: str
    cases: list[str] = field(default_factory=list)
    finished: bool = False


def segment_on_devices(
    source: EnsembleSource,
    devices: Sequence[str],
    scans: Sequence[ScanFiles],
    out: str | Path,
    options: SegmentOptions,
    reporter: Reporter,
) -> dict[str, str]:
    """Segment every scan, as many at a time as there are devices; one may be named several times.

    `options.max_memory` is for all processes together.

    Returns:
        Case to reason, of those that failed; also 'device NAME', where a process could not begin.

    Raises:
        ValueError, FileNotFoundError: models that cannot be loaded, before any process begins.
        BlockingIOError: another process segments into `out`.
    """
    with folder_lock(out, SEGMENTATION):
        return _on_devices(source, devices, scans, Path(out), options, reporter)


def _on_devices(
    source: EnsembleSource, devices: Sequence[str], scans: Sequence[ScanFiles], out: Path, options: SegmentOptions,
    reporter: Reporter,
) -> dict[str, str]:  # fmt: skip
    ensemble = source.build("cpu")
    record = RunRecord(out, ensemble, options, ", ".join(map(device_name, devices)))
    del ensemble
    listener = RecordingListener(record, reporter)
    left = skip_finished(record, scans, reporter)
    devices = list(devices)[: len(left)]
    if not left:
        return {}
    limit = (options.max_memory or available_memory() // 2) // len(devices)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    tasks, news = context.Queue(), context.Queue()
    for task in [*left, *[None] * len(devices)]:
        tasks.put(task)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    workers = []
    for index, device in enumerate(devices):
        arguments = (index, source, device, tasks, news, record.out, replace(options, max_memory=limit),
                     record.labels_made_by, threads)  # fmt: skip
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        workers.append(_Worker(process, device))
    try:
        _listen(workers, news, listener, {scan.case: scan for scan in left})
    finally:
        for worker in workers:
            if worker.process.is_alive() and not worker.finished:
                worker.process.terminate()
        for channel in (tasks, news):
            channel.cancel_join_thread()  # what nobody took is of no interest any more
            channel.close()
        for worker in workers:
            worker.process.join(10)
    return listener.failures


def _listen(workers: list[_Worker], news: Any, listener: RecordingListener, scans: dict[str, ScanFiles]) -> None:
    """Hear the processes until all have ended; what none of them came to has failed."""
    open_cases = dict(scans)
    while not all(worker.finished for worker in workers):
        try:
            index, what, arguments = news.get(timeout=_PATIENCE)
        except queue.Empty:
            for worker in workers:
                if not worker.finished and not worker.process.is_alive() and news.empty():
                    _bury(worker, f"the process on {worker.device} ended with code {worker.process.exitcode}: out of "
                          "memory? The same command with --resume tries again", listener, open_cases)  # fmt: skip
            continue
        worker = workers[index]
        if what == "finished":
            worker.finished = True
        elif what == "broken":
            _bury(worker, arguments[0], listener, open_cases)
        else:
            case = arguments[0]
            if what == "begin":
                worker.cases.append(case)
            elif what in ("done", "failed"):
                worker.cases.remove(case)
                open_cases.pop(case)
            getattr(listener, what)(*arguments)
    for scan in list(open_cases.values()):
        reason = ChildProcessError("no process was left to segment it")
        listener.begin(scan.case)
        listener.failed(scan.case, failed_entry(scan, reason))


def _bury(worker: _Worker, reason: str, listener: RecordingListener, open_cases: dict[str, ScanFiles]) -> None:
    worker.finished = True
    for case in worker.cases:
        listener.failed(case, failed_entry(open_cases.pop(case), ChildProcessError(reason)))
    if not worker.cases:
        listener.failures[f"device {worker.device}"] = reason
    worker.cases.clear()


class _Sender:
    """Hears of cases in a worker and sends it on."""

    def __init__(self, index: int, news: Any) -> None:
        self._index, self._news = index, news

    def __getattr__(self, what: str) -> Any:
        if what not in ("begin", "step", "done", "failed"):
            raise AttributeError(what)
        return lambda *arguments: self._news.put((self._index, what, arguments))


def _work(
    index: int,
    source: EnsembleSource,
    device: str,
    tasks: Any,
    news: Any,
    out: Path,
    options: SegmentOptions,
    made_by: dict[str, Any],
    threads: int,
) -> None:
    """What a process does."""
    torch.set_num_threads(threads)
    with contextlib.suppress(KeyboardInterrupt):  # the parent has it too, and says so
        try:
            ensemble = source.build(device)
        except Exception as error:
            news.put((index, "broken", (f"{device}: {error}",)))
            return
        run_cases(ensemble, _taken(tasks), out, options, made_by, _Sender(index, news))
        news.put((index, "finished", ()))


def _taken(tasks: Any) -> Iterator[ScanFiles]:
    while (scan := tasks.get()) is not None:
        yield scan
