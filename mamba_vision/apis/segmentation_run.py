"""A run over many scans: every case's files, one table for all, and what failed.

In the folder of results, for every case

    CASE.nii.gz                 labels, in the grid of the scan
    CASE_preview.png            three orthogonal slices with the labels over them
    CASE_probabilities.nii.gz   on demand

and for all of them statistics.csv, statistics.json and run.json, which are brought up to date after each case.
"""

import csv
import io
import json
import platform
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mamba_vision.apis.volume_inference import inference_volume
from mamba_vision.apis.volume_model import checkpoint_hash
from mamba_vision.apis.volume_result import VolumeResult
from mamba_vision.utils.atomic import write_json, write_text
from mamba_vision.utils.memory import peak_memory
from mamba_vision.version import __version__
from mamba_vision.volumes.scans import ScanFiles
from mamba_vision.volumes.statistics import flat_record


@dataclass(frozen=True)
class SegmentOptions:
    """What can be chosen for a run; see `inference_volume` for the first ones.

    `statistics`, `preview` and `probabilities` say what is written beside the labels; with `resume`, cases that are
    finished with the same weights and options are left as they are.
    """

    tta: str = "flips"
    overlap: float = 0.5
    max_memory: int | None = None
    amp: bool = False
    labels: tuple[str, ...] | None = None
    batch_size: int | None = None
    statistics: bool = True
    preview: bool = True
    probabilities: bool = False
    resume: bool = False

    def of_labels(self) -> dict[str, Any]:
        """Those on which the labels depend, as JSON keeps them."""
        return {
            "tta": self.tta, "overlap": self.overlap, "amp": self.amp,
            "labels": None if self.labels is None else sorted(self.labels),
        }  # fmt: skip


class Reporter(Protocol):
    """Who is told how a run goes."""

    def begin(self, case: str) -> None: ...

    def step(self, stage: str, done: int, total: int) -> None: ...

    def end(self, case: str, message: str, failed: bool = False) -> None: ...


def segment_scans(
    model: nn.Module, scans: Sequence[ScanFiles], out: str | Path, options: SegmentOptions, reporter: Reporter
) -> dict[str, str]:
    """Segment every scan; one that fails does not stop the others.

    Returns:
        Case to reason, of those that failed.
    """
    record = RunRecord(Path(out), model, options)
    failures: dict[str, str] = {}
    for scan in scans:
        reporter.begin(scan.case)
        if options.resume and record.is_finished(scan):
            reporter.end(scan.case, "already finished")
            continue
        start = time.perf_counter()
        try:
            result = inference_volume(
                model, scan, tta=options.tta, overlap=options.overlap, max_memory=options.max_memory, amp=options.amp,
                labels=options.labels, probabilities=options.probabilities, batch_size=options.batch_size,
                scratch=record.out, progress=reporter.step,
            )  # fmt: skip
            reporter.step("write", 0, 1)
            statistics = record.add(scan, result, start)
        except Exception as error:  # whatever it is: the other scans are still to be segmented
            failures[scan.case] = explain(error)
            record.add_failure(scan, error)
            reporter.end(scan.case, failures[scan.case], failed=True)
        else:
            reporter.end(scan.case, summarize(result, statistics, time.perf_counter() - start))
    return failures


class RunRecord:
    """The files of a run: those of each case, and the tables and run.json of all.

    What an earlier run left in the folder about other cases stays in the tables.
    """

    def __init__(self, out: Path, model: nn.Module, options: SegmentOptions) -> None:
        self.out, self.options = out, options
        out.mkdir(parents=True, exist_ok=True)
        self._start = time.perf_counter()
        self._hash = checkpoint_hash(model.checkpoint)
        before = _read(out / "run.json")
        self._statistics = _read(out / "statistics.json")
        self._run = {
            "model": {
                "config": str(model.cfg.filename), "checkpoint": str(model.checkpoint), "sha256": self._hash,
                "network": model.cfg.model.get("network", {}).get("type"),
            },
            "options": asdict(options),
            "versions": _versions(),
            "device": _device_name(next(model.parameters()).device),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "cases": before.get("cases", {}),
        }  # fmt: skip

    def is_finished(self, scan: ScanFiles) -> bool:
        """Whether the labels of this scan are there, made with the same weights and options."""
        before = self._run["cases"].get(scan.case, {})
        return (
            before.get("status") == "done"
            and before.get("model_sha256") == self._hash
            and before.get("options") == self.options.of_labels()
            and before.get("images") == _describe(scan)
            and all((self.out / name).is_file() for name in self._files(scan.case))
        )

    def add(self, scan: ScanFiles, result: VolumeResult, start: float) -> list[dict[str, Any]] | None:
        """Write the files of a case; the labels come last, so that where they are, all is. Returns the statistics."""
        statistics = result.statistics() if self.options.statistics else None
        if self.options.probabilities:
            result.save_probabilities(self.out / f"{scan.case}_probabilities.nii.gz")
        if self.options.preview:
            result.preview(self.out / f"{scan.case}_preview.png")
        result.save(self.out / f"{scan.case}.nii.gz")
        self._run["cases"][scan.case] = {
            "status": "done", "images": _describe(scan), "files": self._files(scan.case),
            "model_sha256": self._hash, "options": self.options.of_labels(), **result.info,
            "seconds_total": round(time.perf_counter() - start, 3),
        }  # fmt: skip
        if statistics is not None:
            self._statistics[scan.case] = statistics
            write_json(self.out / "statistics.json", self._statistics)
            write_text(self.out / "statistics.csv", _table(self._statistics))
        self._write()
        return statistics

    def add_failure(self, scan: ScanFiles, error: Exception) -> None:
        """Note that a case failed, and why."""
        self._run["cases"][scan.case] = {
            "status": "failed", "images": _describe(scan), "error": explain(error),
            "traceback": traceback.format_exception(error),
        }  # fmt: skip
        self._write()

    def _files(self, case: str) -> list[str]:
        names = [f"{case}.nii.gz"]
        names += [f"{case}_preview.png"] * self.options.preview
        return names + [f"{case}_probabilities.nii.gz"] * self.options.probabilities

    def _write(self) -> None:
        self._run["seconds"] = round(time.perf_counter() - self._start, 1)
        self._run["peak_memory_bytes"] = peak_memory()
        if torch.cuda.is_available():
            self._run["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        write_json(self.out / "run.json", self._run)


def explain(error: Exception) -> str:
    """An error as one line for a list of failures."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU has too little memory for one window: try --batch-size 1, --amp or --device cpu"
    if isinstance(error, MemoryError):
        return "too little memory for the scan itself (--max-memory only bounds the logits)"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"


def summarize(result: VolumeResult, statistics: list[dict[str, Any]] | None, seconds: float) -> str:
    """A case in one line: size, volumes of its labels, seconds."""
    size = " x ".join(map(str, result.volume.shape))
    spacing = " x ".join(f"{side:.3g}" for side in result.volume.spacing)
    found = [f"{one['name']} {one['ml']:.4g} ml" for one in statistics or []]
    volumes = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
    return f"{size} voxels of {spacing} mm: {volumes or 'segmented'} ({seconds:.1f} s, {result.info['logits']})"


def _table(statistics: dict[str, list[dict[str, Any]]]) -> str:
    rows = [{"case": case, **flat_record(record)} for case, records in sorted(statistics.items()) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def _describe(scan: ScanFiles) -> list[list[str | int]]:
    """Names and sizes of the scan's files: enough to see that it is another scan of the same name."""
    found = []
    for image in scan.images:
        files = [file for file in image.iterdir() if file.is_file()] if image.is_dir() else [image]
        found.append([str(image), sum(file.stat().st_size for file in files if file.exists())])
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or somebody else's file: begin anew
        return {}
    return content if isinstance(content, dict) else {}


def _versions() -> dict[str, str]:
    names = ("torch", "monai", "numpy", "nibabel")
    return {"mamba_vision": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in names
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
