"""What a user sees of a run: a bar with the time left on a terminal, lines elsewhere."""

import io

from rich.console import Console

from mamba_vision.apis import segmentation_progress
from mamba_vision.apis.segmentation_progress import ProgressReporter


def _run(console, clock=None):
    with ProgressReporter(2, console) as reporter:
        for case, failed in (("a", False), ("b", True)):
            reporter.begin(case)
            reporter.step(case, "read", 0, 1)
            for done in range(0, 9, 2):
                if clock is not None:
                    clock[0] += 20
                reporter.step(case, "predict", done, 8)
            reporter.step(case, "restore", 1, 1)
            reporter.end(case, "because" if failed else "fine", failed)
    return console.file.getvalue()


def test_lines_where_there_is_no_terminal(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(segmentation_progress.time, "monotonic", lambda: clock[0])
    said = _run(Console(file=io.StringIO(), highlight=False), clock).splitlines()
    assert said[-1] == "[2/2] b: failed: because" and "[1/2] a: fine" in said
    assert "    a: window 2 of 8, 60 s left" in said  # two windows in 20 s, six to go
    assert len(said) < 10


def test_a_bar_on_a_terminal():
    said = _run(Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None))
    assert "scan 2 of 2" in said and "left" in said and "b: failed: because" in said
    assert "window 2 of" not in said


def test_several_scans_under_way():
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with ProgressReporter(3, console) as reporter:
        reporter.begin("a")
        reporter.begin("b")
        reporter.step("a", "predict", 1, 2)
        reporter.step("b", "read", 0, 1)
        reporter.end("b", "broken", failed=True)
        reporter.step("b", "write", 0, 1)  # too late: not shown
        reporter.end("a", "fine")
        reporter.end("c", "already finished")
    lines = [line for line in console.file.getvalue().splitlines() if ": " in line]
    assert any("[1/3] b: failed: broken" in line for line in lines)
    assert any("[3/3] c: already finished" in line for line in lines)
