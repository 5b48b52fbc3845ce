"""A run over many scans: while one is predicted, the next is read and the one before is written.

What is written for a case: segmentation_files. What is kept for all: segmentation_record.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from mamba_vision.apis.segmentation_files import SegmentOptions, write_case
from mamba_vision.apis.segmentation_record import (
    RunRecord,
    device_name,
    done_entry,
    failed_entry,
    summarize,
)
from mamba_vision.apis.volume_ensemble import VolumeEnsemble, as_ensemble
from mamba_vision.apis.volume_inference import Model, PreparedScan, prepare_scan, segment_prepared
from mamba_vision.apis.volume_result import VolumeResult
from mamba_vision.utils.folder_lock import SEGMENTATION, folder_lock
from mamba_vision.utils.memory import available_memory
from mamba_vision.volumes.cache import estimated_voxels
from mamba_vision.volumes.scans import ScanFiles

_BYTES_AHEAD = 24  # a voxel and channel: the peak of reading and preparing


class Reporter(Protocol):
    """Who is told how a run goes. Several cases may be under way at once."""

    def begin(self, case: str) -> None: ...

    def step(self, case: str, stage: str, done: int, total: int) -> None: ...

    def end(self, case: str, message: str, failed: bool = False) -> None: ...


class Listener(Protocol):
    """Who hears of cases as they go; called from several threads."""

    def begin(self, case: str) -> None: ...

    def step(self, case: str, stage: str, done: int, total: int) -> None: ...

    def done(self, case: str, entry: dict[str, Any], statistics: list[dict] | None, message: str) -> None: ...

    def failed(self, case: str, entry: dict[str, Any]) -> None: ...


def segment_scans(
    model: Model, scans: Sequence[ScanFiles], out: str | Path, options: SegmentOptions, reporter: Reporter
) -> dict[str, str]:
    """Segment every scan; one that fails does not stop the others.

    Returns:
        Case to reason, of those that failed.

    Raises:
        BlockingIOError: another process segments into `out`, whose run.json and tables this would lose.
    """
    ensemble = as_ensemble(model)
    with folder_lock(out, SEGMENTATION):
        record = RunRecord(Path(out), ensemble, options, device_name(ensemble.device))
        listener = RecordingListener(record, reporter)
        left = skip_finished(record, scans, reporter)
        run_cases(ensemble, left, record.out, options, record.labels_made_by, listener)
    return listener.failures


def skip_finished(record: RunRecord, scans: Sequence[ScanFiles], reporter: Reporter) -> list[ScanFiles]:
    """The scans that are still to be segmented; the others are reported."""
    left = []
    for scan in scans:
        if record.options.resume and record.is_finished(scan):
            reporter.begin(scan.case)
            reporter.end(scan.case, "already finished")
        else:
            left.append(scan)
    return left


class RecordingListener:
    """Passes what it hears on to a record and a reporter, one thing at a time."""

    def __init__(self, record: RunRecord, reporter: Reporter) -> None:
        self.record, self.reporter, self.failures = record, reporter, {}
        self._lock = Lock()

    def begin(self, case: str) -> None:
        with self._lock:
            self.reporter.begin(case)

    def step(self, case: str, stage: str, done: int, total: int) -> None:
        with self._lock:
            self.reporter.step(case, stage, done, total)

    def done(self, case: str, entry: dict[str, Any], statistics: list[dict] | None, message: str) -> None:
        with self._lock:
            self.record.note(case, entry, statistics)
            self.reporter.end(case, message)

    def failed(self, case: str, entry: dict[str, Any]) -> None:
        with self._lock:
            self.failures[case] = entry["error"]
            self.record.note(case, entry)
            self.reporter.end(case, entry["error"], failed=True)


def run_cases(
    ensemble: VolumeEnsemble,
    scans: Iterable[ScanFiles],
    out: Path,
    options: SegmentOptions,
    made_by: dict[str, Any],
    listener: Listener,
) -> None:
    """Read, predict and write scan after scan, these three at once where memory allows.

    Args:
        ensemble: the models.
        scans: taken one by one, when a scan's turn to be read has come.
        out: folder of the files.
        options: of the run.
        made_by: what each case's entry says of how its labels were made.
        listener: hears of every case.
    """
    todo = iter(scans)
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
        try:
            ahead: tuple[ScanFiles, Future] | None = None
            written: Future | None = None
            while True:
                if ahead is None:
                    scan = next(todo, None)
                    if scan is None:
                        break
                    ahead = _begin(reading, ensemble, scan, listener)
                scan, prepared = ahead
                ahead = None
                try:
                    ready: PreparedScan = prepared.result()
                except Exception as error:  # whatever it is: the other scans are still to be segmented
                    listener.failed(scan.case, failed_entry(scan, error))
                    continue
                following = next(todo, None)
                if following is not None and _fits_ahead(following, ensemble, options):
                    ahead = _begin(reading, ensemble, following, listener)
                    following = None
                try:
                    result = segment_prepared(ensemble, ready, options, out, partial(listener.step, scan.case))
                except Exception as error:
                    listener.failed(scan.case, failed_entry(scan, error))
                    result = None
                del ready, prepared
                if written is not None:
                    written.result()  # no more than one result waits
                if result is not None:
                    written = writing.submit(_write, scan, result, out, options, made_by, listener)
                    del result
                if following is not None:  # there was no room beside: all is let go before the next is read
                    if written is not None:
                        written.result()
                    ahead = _begin(reading, ensemble, following, listener)
            if written is not None:
                written.result()
        except BaseException:
            reading.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(
    pool: ThreadPoolExecutor, ensemble: VolumeEnsemble, scan: ScanFiles, listener: Listener
) -> tuple[ScanFiles, Future]:
    listener.begin(scan.case)
    tell = partial(listener.step, scan.case)
    return scan, pool.submit(prepare_scan, ensemble, scan, None, tell)


def _fits_ahead(scan: ScanFiles, ensemble: VolumeEnsemble, options: SegmentOptions) -> bool:
    """Whether the next scan takes little of the memory that is free: the present one may still need more."""
    needed = estimated_voxels(scan) * len(scan.images) * _BYTES_AHEAD
    return needed <= min(available_memory() // 4, options.max_memory or needed)


def _write(
    scan: ScanFiles,
    result: VolumeResult,
    out: Path,
    options: SegmentOptions,
    made_by: dict[str, Any],
    listener: Listener,
) -> None:
    start = time.perf_counter()
    try:
        listener.step(scan.case, "write", 0, 1)
        statistics = result.statistics() if options.statistics else None
        files = write_case(result, scan, out, options)
        spent = result.info["seconds"]  # at work on this scan: while it waited for its turn others were
        spent["write"] = round(time.perf_counter() - start, 3)
        seconds = sum(spent.values())
        entry = done_entry(scan, result, files, options, made_by, seconds)
        message = summarize(result, statistics, seconds)
    except Exception as error:
        listener.failed(scan.case, failed_entry(scan, error))
    else:
        listener.done(scan.case, entry, statistics, message)
