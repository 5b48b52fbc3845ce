"""Telling how a segmentation run goes: a live bar with the time left on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

_STAGES = {
    "read": "reading", "prepare": "preparing", "predict": "window", "restore": "into the scan's grid",
    "write": "writing",
}  # fmt: skip
_QUIET = 30.0  # seconds between lines where there is no terminal


class ProgressReporter:
    """Reports to a console; a context manager, as a live display has to be closed.

    Args:
        total: scans in the run.
        console: rich's; standard output by default.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._total, self._index, self._case = total, 0, ""
        self._started = self._spoke = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=self.console, transient=True,
            disable=not self.console.is_terminal,
        )  # fmt: skip
        self._all = self._progress.add_task("scans", total=total, visible=total > 1)
        self._one = self._progress.add_task("", total=1)

    def __enter__(self) -> "ProgressReporter":
        self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, case: str) -> None:
        """A scan's turn has come."""
        self._index += 1
        self._case, self._spoke, self._started = case, time.monotonic(), time.monotonic()
        self._progress.reset(self._one, total=1, description=case)
        self._progress.update(self._all, description=f"scan {self._index} of {self._total}")

    def step(self, stage: str, done: int, total: int) -> None:
        """A stage of the present scan has begun, or gone on."""
        text = _STAGES.get(stage, stage)
        if stage == "predict":
            if done == 0:  # the time left is that of the windows; reading does not count
                self._progress.reset(self._one, total=total)
                self._started = time.monotonic()
            self._progress.update(self._one, completed=done, total=total, description=f"{self._case}: {text}")
            self._progress.update(self._all, completed=self._index - 1 + 0.99 * done / total)
            self._say_rarely(done, total)
        else:
            self._progress.update(self._one, description=f"{self._case}: {text}")

    def end(self, case: str, message: str, failed: bool = False) -> None:
        """A scan is done with."""
        self._progress.update(self._all, completed=self._index)
        line = Text(f"[{self._index}/{self._total}] ", style="dim")
        line.append(case, style="bold red" if failed else "bold")
        line.append(f": failed: {message}" if failed else f": {message}")
        self.console.print(line, soft_wrap=True)

    def _say_rarely(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.console.is_terminal or now - self._spoke < _QUIET or done >= total:
            return
        self._spoke = now
        left = (now - self._started) / max(done, 1) * (total - done)
        amount = f"{left:.0f} s" if left < 90 else f"{left / 60:.1f} min"
        self.console.print(f"    {self._case}: window {done} of {total}, {amount} left", soft_wrap=True)
