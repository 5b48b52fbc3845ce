"""Another process is told, waits, or finds the lock free once its holder was killed."""

import os
import signal
import subprocess
import sys

import pytest

from mamba_vision.utils.folder_lock import folder_lock

HOLD = """
import sys, time
from mamba_vision.utils.folder_lock import folder_lock
with folder_lock(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_one_process_at_a_time_until_it_is_killed(tmp_path):
    process = holder(tmp_path / "run", 60)
    refusal = pytest.raises(BlockingIOError, match=rf"run: found process {process.pid} on .* expected one training")
    with refusal, folder_lock(tmp_path / "run", "training"):
        pytest.fail("two hold it")
    with folder_lock(tmp_path / "run", "preparing"), folder_lock(tmp_path / "other", "training"):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(2):
        with folder_lock(tmp_path / "run", "training"):
            pass
    assert not list((tmp_path / "run").iterdir())  # it takes its file away


def test_waits_for_its_turn(tmp_path, capsys):
    process = holder(tmp_path, 0.5)
    with folder_lock(tmp_path, "training", wait=True):
        assert process.wait(10) == 0
    assert f"waiting for process {process.pid}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_has_no_lock(tmp_path):
    (tmp_path / ".training.lock").mkdir()  # stands for any reason why the file cannot be opened
    with folder_lock(tmp_path, "training"):
        pass
