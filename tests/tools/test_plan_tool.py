"""tools/plan.py as it is typed."""

import runpy
import sys
from pathlib import Path

import pytest
from scan_files import labels, make_dataset, save

from mamba_vision.utils import project_folder

TOOL = str(project_folder("tools") / "plan.py")


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, stdout and stderr, in this process."""
    monkeypatch.setattr(sys, "argv", ["plan.py", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(TOOL, run_name="__main__")
    return ended.value.code, *capsys.readouterr()


def test_a_plan_ends_with_its_files_and_the_next_command(tmp_path, monkeypatch, capsys):
    data, work = make_dataset(tmp_path / "data"), tmp_path / "work"
    options = ("--work-dir", work, "--preset", "fast", "--spacing", 1, 1, 2, "--folds", 3)
    status, out, _ = run(monkeypatch, capsys, data, *options)
    assert status == 0
    assert "3 cases, 1 channel (MR0), 2 labels (organ, lesion)" in out and "as asked, 1 x 1 x 2 mm" in out
    assert "fast     about" in out and "  <- this plan" in out and "best     about" in out
    written = [line.strip() for line in out[out.index("Written:") :].splitlines()[1:8]]
    assert written[0] == str(work / "config.py") and all(Path(file).exists() for file in written)
    assert out.rstrip().endswith(f"Next:  python tools/train.py {work / 'config.py'}")


def test_problems_are_a_table_and_status_1(tmp_path, monkeypatch, capsys):
    data = make_dataset(tmp_path / "data")
    (data / "labelsTr" / "a.nii.gz").unlink()
    save(data / "labelsTr" / "b.nii.gz", labels() * 9)
    status, out, _ = run(monkeypatch, capsys, data, "--work-dir", tmp_path / "work")
    assert status == 1 and "2 problems, 0 warnings" in out
    flat = " ".join(out.replace("│", " ").split())
    assert "no label file" in flat and "label values 9, 18" in flat and "Nothing was planned." in flat
    assert len((tmp_path / "work" / "problems.csv").read_text().splitlines()) == 3


def test_what_is_not_there_or_not_understood(tmp_path, monkeypatch, capsys):
    status, _, err = run(monkeypatch, capsys, tmp_path / "absent")
    assert status == 1 and "absent: no such file or folder; expected scans" in err and "Traceback" not in err
    for arguments, message in (
        (("--modle", "x"), "unrecognized arguments"),
        (("--folds", "1"), "--folds must be 2 or more"),
        (("--vram", "0"), "--vram must be above 0"),
        (("--spacing", "0", "1", "1"), "--spacing must be three numbers above 0"),
        (("--labels", "liver"), "--labels takes VALUE=NAME such as 1=liver, got 'liver'"),
        (("--labels", "1=a", "2=a"), "the name 'a' is given twice"),
        (("--model", "resnet"), "invalid choice: 'resnet'"),
    ):
        status, _, err = run(monkeypatch, capsys, tmp_path, *arguments)
        assert status == 2 and message in err


def test_a_dry_run_shows_the_plan(tmp_path, monkeypatch, capsys):
    data = make_dataset(tmp_path / "data")
    (data / "dataset.json").unlink()
    names = ("--labels", "1=liver", "2=tumour", "--channels", "CT")
    arguments = (data, "--no-estimate", "--dry-run", *names, "--model", "umamba_enc")
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(monkeypatch, capsys, *arguments)
    assert status == 0 and "liver, tumour" in out and "UMamba enc" in out and "Dry run: nothing was written." in out
    assert not (tmp_path / "work_dirs").exists()
