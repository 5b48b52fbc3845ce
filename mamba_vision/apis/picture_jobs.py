"""Many files, one after another: one that fails is reported and does not stop the others, with progress.

What is finished is kept in a journal, so that an interrupted run goes on where it stopped.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from mamba_vision.utils.atomic import make_folder

JOURNAL = "finished.jsonl"


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers with their names, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def names_and_sizes(sources: Sequence[Path]) -> list[list[str | int]]:
    """Names of files or folders and their bytes: enough to see that a source of the same name is another one."""
    found = []
    for source in sources:
        files = [file for file in source.iterdir() if file.is_file()] if source.is_dir() else [source]
        found.append([str(source), sum(file.stat().st_size for file in files if file.exists())])
    return found


class Journal:
    """What is finished of a run over many files: one line of JSON a result, added when its files are written.

    Nothing is rewritten, so that it costs the same after a million pictures; a line that a killed run left torn is
    passed over. Of several lines about one source the last counts.

    Args:
        file: that keeps it, FOLDER/finished.jsonl; made with the first line.
        settings: what every result depends on besides its sources: weights and options, as JSON can have them.
    """

    def __init__(self, file: str | Path, settings: Mapping[str, Any]) -> None:
        self.file, self.settings = Path(file), dict(settings)
        self._lines: dict[str, dict[str, Any]] = {}
        text = self.file.read_text(encoding="utf-8", errors="replace") if self.file.is_file() else ""
        self._torn = not text.endswith("\n") and bool(text)
        for line in text.splitlines():
            try:
                found = json.loads(line)
                self._lines[found["sources"][0][0]] = found
            except (ValueError, TypeError, KeyError, IndexError):
                continue

    def finished(
        self, sources: Sequence[Path], files: Sequence[Path], settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """What was noted of a result, if it was made of these sources, with the same settings, and its files are there.

        Args:
            sources: files or folders that it is made of.
            files: that are wanted of it.
            settings: of this one, besides those of all.
        """
        line = self._lines.get(str(sources[0]))
        if line is None or line.get("settings") != _plain({**self.settings, **(settings or {})}):
            return None
        same = line["sources"] == names_and_sizes(sources) and set(map(str, files)) <= set(line.get("files", ()))
        return line.get("facts", {}) if same and all(file.is_file() for file in files) else None

    def note(
        self, sources: Sequence[Path], files: Sequence[Path], settings: Mapping[str, Any] | None = None, **facts: Any
    ) -> None:
        """A result is finished; its arguments are those of `finished`, and `facts` what that will return of it."""
        line = {
            "sources": names_and_sizes(sources), "files": list(map(str, files)),
            "settings": _plain({**self.settings, **(settings or {})}), "facts": _plain(facts),
        }  # fmt: skip
        self._lines[str(sources[0])] = line
        make_folder(self.file.parent)
        with self.file.open("a", encoding="utf-8") as file:
            file.write("\n" * self._torn + json.dumps(line) + "\n")
        self._torn = False


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: lists for tuples."""
    return json.loads(json.dumps(settings))


@dataclass(frozen=True)
class Job:
    """Something to make of files.

    Attributes:
        sources: files that it is made of; the first one names the job.
        target: file that is made.
        extras: files that are made beside it.
        work: makes it and says what it did; takes a function of steps done and all steps.
    """

    sources: tuple[Path, ...]
    target: Path
    work: Callable[[Callable[[int, int], None]], str]
    extras: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are made."""
        return (self.target, *self.extras)


def run_jobs(
    jobs: Sequence[Job],
    console: Console,
    skip_existing: bool = False,
    journal: Journal | None = None,
    resume: bool = False,
) -> dict[Path, str]:
    """Do them all.

    Args:
        skip_existing: leave those whose target is there, whatever it was made with.
        journal: where to note what is finished; None: nowhere.
        resume: leave those that the journal knows as finished.

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
            known = resume and journal is not None and journal.finished(job.sources, job.files) is not None
            if known or (skip_existing and job.target.is_file()):
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
                if journal is not None:
                    journal.note(job.sources, job.files)
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
