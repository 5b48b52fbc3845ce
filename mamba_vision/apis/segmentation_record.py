"""What is known of a run: run.json and the table of statistics, brought up to date after each case."""

import csv
import hashlib
import io
import json
import platform
import time
import traceback
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mamba_vision.apis.picture_jobs import names_and_sizes
from mamba_vision.apis.segmentation_files import SegmentOptions
from mamba_vision.apis.volume_ensemble import VolumeEnsemble
from mamba_vision.apis.volume_inference import choose_steps
from mamba_vision.apis.volume_model import checkpoint_hash
from mamba_vision.apis.volume_result import VolumeResult
from mamba_vision.utils.atomic import writable_folder, write_json, write_text
from mamba_vision.utils.memory import peak_memory
from mamba_vision.version import __version__
from mamba_vision.volumes.components import steps_as_json
from mamba_vision.volumes.pictures import picture_ending
from mamba_vision.volumes.scans import ScanFiles
from mamba_vision.volumes.statistics import flat_record


def describe_models(ensemble: VolumeEnsemble) -> dict[str, Any]:
    """What the segmentations were made with; `sha256` is of the weights, of several that of their hashes."""
    hashes = [checkpoint_hash(model.checkpoint) for model in ensemble.models]
    members = [
        {"config": str(model.cfg.filename), "checkpoint": str(model.checkpoint), "sha256": found,
         "network": model.cfg.model.get("network", {}).get("type")}
        for model, found in zip(ensemble.models, hashes)
    ]  # fmt: skip
    if len(members) == 1:
        return members[0]
    remaining = iter(hashes)
    parts = [",".join(next(remaining) for _ in models) for models in ensemble.configurations]
    joined = hashlib.sha256(";".join(parts).encode()).hexdigest()  # folds are averaged otherwise than configurations
    return {"checkpoint": ensemble.describe(), "sha256": joined, "members": members}


class RunRecord:
    """The tables and run.json of a folder of results. What an earlier run left there about other cases stays.

    Args:
        out: the folder; made if missing.
        ensemble: the models.
        options: of the run.
        devices: names of the devices in use.
    """

    def __init__(self, out: Path, ensemble: VolumeEnsemble, options: SegmentOptions, devices: str) -> None:
        self.out, self.options = out, options
        writable_folder(out)
        self._start = time.perf_counter()
        self.model = describe_models(ensemble)
        self.labels_made_by = {
            "model_sha256": self.model["sha256"],
            "options": options.of_labels() | {"postprocessing": steps_as_json(choose_steps(ensemble, options))},
        }
        before = _read(out / "run.json")
        self._statistics = _read(out / "statistics.json")
        self._peak = 0
        self._run = {
            "model": self.model,
            "options": asdict(options),
            "versions": _versions(),
            "device": devices,
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "cases": before.get("cases", {}),
        }

    def is_finished(self, scan: ScanFiles) -> bool:
        """Whether the files of this scan are there, made with the same weights and options."""
        before = self._run["cases"].get(scan.case, {})
        return (
            before.get("status") == "done"
            and all(before.get(name) == value for name, value in self.labels_made_by.items())
            and before.get("images") == names_and_sizes(scan.images)
            and set(self.options.outputs()) <= set(before.get("outputs", ()))
            and all((self.out / name).is_file() for name in before["files"])
            and (not self.options.statistics or scan.case in self._statistics)
        )

    def note(self, case: str, entry: dict[str, Any], statistics: list[dict[str, Any]] | None = None) -> None:
        """Take over what became of a case."""
        self._run["cases"][case] = entry
        self._peak = max(self._peak, entry.get("peak_memory_bytes", 0), peak_memory())
        if statistics is not None:
            self._statistics[case] = statistics
            write_json(self.out / "statistics.json", self._statistics)
            write_text(self.out / "statistics.csv", _table(self._statistics))
        self._run["seconds"] = round(time.perf_counter() - self._start, 1)
        self._run["peak_memory_bytes"] = self._peak
        if found := entry.get("peak_gpu_memory_bytes"):
            self._run["peak_gpu_memory_bytes"] = max(found, self._run.get("peak_gpu_memory_bytes", 0))
        write_json(self.out / "run.json", self._run)


def done_entry(
    scan: ScanFiles,
    result: VolumeResult,
    files: list[str],
    options: SegmentOptions,
    made_by: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """What run.json says of a case that is done."""
    peaks = {"peak_memory_bytes": peak_memory()}  # of the process so far
    if result.info["device"].startswith("cuda"):
        peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated(result.info["device"])
    return {
        "status": "done", "images": names_and_sizes(scan.images), "files": files, "outputs": options.outputs(),
        **made_by, **result.info, "seconds_total": round(seconds, 3), **peaks,
    }  # fmt: skip


def failed_entry(scan: ScanFiles, error: BaseException) -> dict[str, Any]:
    """What run.json says of a case that failed."""
    return {
        "status": "failed", "images": names_and_sizes(scan.images), "error": explain(error),
        "traceback": traceback.format_exception(error),
    }  # fmt: skip


def explain(error: BaseException) -> str:
    """An error as one line for a list of failures."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU has too little memory: try --batch-size 1, --amp, --buffer auto or --device cpu"
    if isinstance(error, MemoryError):
        return "too little memory for the scan itself (--max-memory only bounds the logits)"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"


def summarize(result: VolumeResult, statistics: list[dict[str, Any]] | None, seconds: float) -> str:
    """A case in one line: size, volumes of its labels, seconds."""
    size = " x ".join(map(str, result.volume.shape))
    spacing = " x ".join(f"{side:.3g}" for side in result.volume.spacing)
    pixels = picture_ending(result.volume.name) and result.volume.is_flat
    found = [
        f"{one['name']} {one['voxels']:,} pixels" if pixels else f"{one['name']} {one['ml']:.4g} ml"
        for one in statistics or []
    ]
    volumes = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
    return f"{size} voxels of {spacing} mm: {volumes or 'segmented'} ({seconds:.1f} s, {result.info['logits']})"


def device_name(device: torch.device | str) -> str:
    """A device as people know it."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def _table(statistics: dict[str, list[dict[str, Any]]]) -> str:
    rows = [{"case": case, **flat_record(record)} for case, records in sorted(statistics.items()) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


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
