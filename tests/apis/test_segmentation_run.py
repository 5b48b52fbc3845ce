"""A run over many scans: reading, predicting and writing at once, several processes, deaths and interrupts."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from segmentation_case import expected_mask, make_scan, make_work_dir

from mamba_vision.apis import init_volume_ensemble, segmentation_run, segmentation_workers
from mamba_vision.apis.segmentation_files import SegmentOptions
from mamba_vision.apis.segmentation_run import segment_scans
from mamba_vision.apis.segmentation_workers import segment_on_devices
from mamba_vision.apis.volume_ensemble import EnsembleSource
from mamba_vision.volumes.scan_collection import collect_scans

FAST = SegmentOptions(tta="none", preview=False)


class Log:
    """A reporter that remembers."""

    def __init__(self):
        self.said, self.stages = [], []

    def begin(self, case):
        self.said.append(("begin", case))

    def step(self, case, stage, done, total):
        self.stages.append((case, stage))

    def end(self, case, message, failed=False):
        self.said.append(("failed" if failed else "done", case))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work_dir(tmp_path_factory.mktemp("run") / "work")


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "scans").mkdir()
    for name in "abcd":
        nib.save(make_scan(), tmp_path / "scans" / f"{name}.nii")
    return tmp_path / "scans"


def _cases(out):
    return {case: entry["status"] for case, entry in json.loads((out / "run.json").read_text())["cases"].items()}


def _overlapping(monkeypatch):
    """While b is predicted, c must come to be read and a to be written; else this waits in vain."""
    reading_c, writing_a, together = threading.Event(), threading.Event(), []
    prepare, segment, write = (getattr(segmentation_run, n) for n in ("prepare_scan", "segment_prepared", "_write"))

    def prepare_scan(ensemble, scan, *rest):
        if scan.case == "c":
            reading_c.set()
        return prepare(ensemble, scan, *rest)

    def segment_prepared(ensemble, prepared, *rest):
        if prepared.name == "b":
            together.append(reading_c.wait(20) and writing_a.wait(20))
        return segment(ensemble, prepared, *rest)

    def write_case(scan, *rest):
        if scan.case == "a":
            writing_a.set()
        return write(scan, *rest)

    for name, function in (("prepare_scan", prepare_scan), ("segment_prepared", segment_prepared)):
        monkeypatch.setattr(segmentation_run, name, function)
    monkeypatch.setattr(segmentation_run, "_write", write_case)
    return together


def test_reading_predicting_and_writing_go_on_at_once(work, scans, tmp_path, monkeypatch):
    together, log = _overlapping(monkeypatch), Log()
    assert segment_scans(init_volume_ensemble(work), collect_scans([scans]), tmp_path / "out", FAST, log) == {}
    assert together == [True]
    assert _cases(tmp_path / "out") == dict.fromkeys("abcd", "done")
    assert [case for what, case in log.said if what == "begin"] == list("abcd")


def test_where_memory_is_short_one_scan_is_held_at_a_time(work, scans, tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation_run, "available_memory", lambda: 1000)
    log = Log()
    assert segment_scans(init_volume_ensemble(work), collect_scans([scans]), tmp_path / "out", FAST, log) == {}
    assert log.said == [(what, case) for case in "abcd" for what in ("begin", "done")]


def test_two_processes_share_the_scans(work, scans, tmp_path):
    (scans / "bb.nii").write_bytes(b"no image")
    log, out = Log(), tmp_path / "out"
    failures = segment_on_devices(EnsembleSource((work,)), ["cpu", "cpu"], collect_scans([scans]), out, FAST, log)
    assert list(failures) == ["bb"] and "is no image" in failures["bb"]
    assert _cases(out) == {**dict.fromkeys("abcd", "done"), "bb": "failed"}
    for name in "abcd":
        np.testing.assert_array_equal(np.asarray(nib.load(out / f"{name}.nii.gz").dataobj), expected_mask(make_scan()))
    assert ("a", "predict") in log.stages and ("a", "write") in log.stages
    record = json.loads((out / "run.json").read_text())
    assert record["device"].count("cpu") == 2 and record["peak_memory_bytes"] > 1e7
    assert len((out / "statistics.csv").read_text().splitlines()) == 9
    log = Log()
    resumed = SegmentOptions(tta="none", preview=False, resume=True)
    assert list(segment_scans(init_volume_ensemble(work), collect_scans([scans]), out, resumed, log)) == ["bb"]
    assert [case for what, case in log.said if what == "done"] == list("abcd")


def test_a_second_run_into_a_folder_is_refused(work, scans, tmp_path):
    """It would write run.json and the tables without the first one's cases."""
    (out := tmp_path / "out").mkdir()
    hold = "from mamba_vision.utils.folder_lock import *\nwith folder_lock('.', SEGMENTATION): print(); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", hold], stdin=pipe, stdout=pipe, cwd=out) as first:
        first.stdout.readline()
        message = r"out: found process \d+ on .* at work here \(segmentation\), expected one segmentation at a time"
        with pytest.raises(BlockingIOError, match=message):
            segment_scans(init_volume_ensemble(work), collect_scans([scans]), out, FAST, Log())
        with pytest.raises(BlockingIOError, match=message):
            segment_on_devices(EnsembleSource((work,)), ["cpu"], collect_scans([scans]), out, FAST, Log())
        first.communicate(b"\n")
    assert not (out / "run.json").exists()


def _killed(index, source, device, tasks, news, *_):
    """A worker that is killed, as by the system for want of memory, at the first scan that it takes."""
    news.put((index, "begin", (tasks.get().case,)))
    news.close()
    news.join_thread()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_fails_its_case_and_no_other(work, scans, tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation_workers, "_work", _killed)
    failures = segment_on_devices(
        EnsembleSource((work,)), ["cpu"], collect_scans([scans]), tmp_path / "out", FAST, Log()
    )
    assert "ended with code -9" in failures["a"] and "--resume" in failures["a"]
    assert {failures[case] for case in "bcd"} == {"no process was left to segment it"}
    assert _cases(tmp_path / "out") == dict.fromkeys("abcd", "failed")


def test_a_device_that_is_not_there_is_listed(work, tmp_path):
    news, listener = queue.Queue(), SimpleNamespace(failures={})
    source, threads = EnsembleSource((work,)), torch.get_num_threads()
    segmentation_workers._work(0, source, "xpu:0", None, news, tmp_path, FAST, {}, threads)
    segmentation_workers._listen([segmentation_workers._Worker(None, "xpu:0")], news, listener, {})
    assert "cannot be used here" in listener.failures["device xpu:0"]


def test_an_interrupt_leaves_whole_files_and_the_rest_is_done_later(work, scans, tmp_path, monkeypatch):
    segment = segmentation_run.segment_prepared

    def interrupted(ensemble, prepared, *rest):
        if prepared.name == "c":
            raise KeyboardInterrupt
        return segment(ensemble, prepared, *rest)

    monkeypatch.setattr(segmentation_run, "segment_prepared", interrupted)
    out, ensemble = tmp_path / "out", init_volume_ensemble(work)
    with pytest.raises(KeyboardInterrupt):
        segment_scans(ensemble, collect_scans([scans]), out, FAST, Log())
    assert _cases(out) == dict.fromkeys("ab", "done")
    assert not [file for file in out.iterdir() if file.name.startswith(".")]
    monkeypatch.undo()
    log = Log()
    options = SegmentOptions(tta="none", preview=False, resume=True)
    assert segment_scans(ensemble, collect_scans([scans]), out, options, log) == {}
    assert _cases(out) == dict.fromkeys("abcd", "done") and len(log.stages) > 0
    assert {case for case, _ in log.stages} == {"c", "d"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ("nii.gz", "gif")}, "formats: expected some of .* found gif"),
        ({"formats": ()}, "formats: expected at least one"),
        ({"surfaces": ("obj",)}, "surfaces: expected some of ply, gif, found obj"),
        ({"buffer": "disk"}, "buffer: expected one of"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentOptions(**options)


@pytest.mark.gpu
def test_a_process_on_each_gpu(work, scans, tmp_path):
    count = torch.cuda.device_count()
    devices = [f"cuda:{number}" for number in range(count)] if count > 1 else ["cuda:0", "cuda:0"]
    assert segment_on_devices(EnsembleSource((work,)), devices, collect_scans([scans]), tmp_path, FAST, Log()) == {}
    record = json.loads((tmp_path / "run.json").read_text())
    assert {entry["device"] for entry in record["cases"].values()} <= set(devices)
    assert record["peak_gpu_memory_bytes"] > 0
    for name in "abcd":
        mask = np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj)
        np.testing.assert_array_equal(mask, expected_mask(make_scan()))
