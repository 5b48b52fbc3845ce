"""Telling how a segmentation run goes: a live bar with the time left on a terminal, plain lines elsewhere."""

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_STAGES = {
    "read": "reading", "prepare": "preparing", "predict": "window", "restore": "into the scan's grid",
    "write": "writing",
}  # fmt: skip
_QUIET = 30.0  # seconds between lines where there is no terminal


class ProgressReporter:
    """Reports to a console; a context manager, as a live display has to be closed.

    Args:
        total: scans in the run; None if it is not known.
        console: rich's; standard output by default.
    """

    def __init__(self, total: int | None, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._total, self._ended = total, 0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self.console, transient=True,
            disable=not self.console.is_terminal,
        )  # fmt: skip
        self._all = self._progress.add_task("scans", total=total, visible=total != 1)
        self._cases: dict[str, _Case] = {}

    def __enter__(self) -> "ProgressReporter":
        self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, case: str) -> None:
        """A scan's turn has come; others may still be under way."""
        now = time.monotonic()
        self._cases[case] = _Case(self._progress.add_task(case, total=1), now, now)
        self._show_all()

    def step(self, case: str, stage: str, done: int, total: int) -> None:
        """A stage of a scan has begun, or gone on."""
        text, known = _STAGES.get(stage, stage), self._cases.get(case)
        if known is None:
            return
        if stage == "predict":
            if done == 0:  # the time left is that of the windows; reading does not count
                self._progress.reset(known.task, total=total)
                known.started = time.monotonic()
            known.share = done / max(total, 1)
            self._progress.update(known.task, completed=done, total=total, description=f"{case}: {text}")
            self._show_all()
            self._say_rarely(case, known, done, total)
        else:
            self._progress.update(known.task, description=f"{case}: {text}")

    def end(self, case: str, message: str, failed: bool = False) -> None:
        """A scan is done with."""
        self._ended += 1
        known = self._cases.pop(case, None)
        if known is not None:
            self._progress.remove_task(known.task)
        self._show_all()
        line = Text(f"[{self._ended}/{self._total}] " if self._total else f"[{self._ended}] ", style="dim")
        line.append(case, style="bold red" if failed else "bold")
        line.append(f": failed: {message}" if failed else f": {message}")
        self.console.print(line, soft_wrap=True)

    def _show_all(self) -> None:
        under_way = sum(0.99 * known.share for known in self._cases.values())
        self._progress.update(
            self._all, completed=self._ended + under_way,
            description=f"scan {min(self._ended + 1, self._total)} of {self._total}" if self._total else "scans",
        )  # fmt: skip

    def _say_rarely(self, case: str, known: "_Case", done: int, total: int) -> None:
        now = time.monotonic()
        if self.console.is_terminal or now - known.spoke < _QUIET or done >= total:
            return
        known.spoke = now
        left = (now - known.started) / max(done, 1) * (total - done)
        amount = f"{left:.0f} s" if left < 90 else f"{left / 60:.1f} min"
        self.console.print(f"    {case}: window {done} of {total}, {amount} left", soft_wrap=True)


@dataclass
class _Case:
    """A scan under way: its bar, when its windows began, when it was last spoken of, the share predicted."""

    task: TaskID
    started: float
    spoke: float
    share: float = 0.0
