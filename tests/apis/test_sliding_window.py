"""Windows over a volume: MONAI's result, whatever the memory, and never more memory than allowed."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import nn

from mamba_vision.apis.sliding_window import LogitsStore, mirrored, sliding_window_logits


@pytest.fixture
def network() -> nn.Module:
    """Sees position within the window, so that every wrong weight or place shows."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(2, 3, 3, padding=1)
            self.place = nn.Parameter(torch.randn(1, 3, 8, 10, 12))

        def forward(self, x):
            return self.conv(x) + self.place

    return Net().requires_grad_(False)


WINDOW = (8, 10, 12)


def _logits(image, network, **options):
    with sliding_window_logits(image, network, WINDOW, 3, **options) as store:
        return np.array(store.array), store.where


@pytest.mark.parametrize("size", [(19, 23, 31), (5, 23, 12), (8, 10, 12), (3, 4, 5), (16, 9, 40)])
def test_equals_monai_whatever_the_memory(size, network):
    image = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    profiles = [compute_importance_map((side,), mode="gaussian", sigma_scale=0.125) for side in WINDOW]
    expected = sliding_window_inference(
        torch.from_numpy(image)[None], WINDOW, 2, network, overlap=0.5, mode="gaussian",
        roi_weight_map=torch.einsum("i,j,k->ijk", *profiles),
    )[0]  # fmt: skip
    found, where = _logits(image, network, batch_size=2)
    assert "in memory" in where
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
    for limit in (4 * 3 * 4 * 8 * 10 * 12, 4 * 3 * 4 * 8 * 10 * max(31, size[2]), 2**20):
        small, _ = _logits(image, network, max_memory=limit)
        np.testing.assert_allclose(small, found, rtol=0, atol=1e-5)


def test_goes_to_a_file_that_leaves_nothing(network, tmp_path):
    image = np.random.default_rng(0).normal(size=(2, 40, 40, 40)).astype(np.float32)
    with sliding_window_logits(image, network, WINDOW, 3, max_memory=200_000, scratch=tmp_path) as store:
        assert "temporary file" in store.where and str(tmp_path) in store.where
        found = np.array(store.array)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_allclose(found, _logits(image, network)[0], rtol=0, atol=1e-5)


def test_a_constant_stays_a_constant():
    with sliding_window_logits(
        np.zeros((1, 21, 17, 9), np.float32), lambda x: torch.full((len(x), 2, *x.shape[2:]), 3.5), (8, 8, 8), 2
    ) as store:
        np.testing.assert_allclose(store.array, 3.5, rtol=1e-6)


def test_flips_average_over_mirrored_copies():
    torch.manual_seed(1)
    conv = nn.Conv3d(1, 2, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 1, 6, 7, 8)
    expected = sum(conv(x.flip(dims)).flip(dims) for dims in ([], [2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4])) / 8
    torch.testing.assert_close(mirrored(conv, (0, 1, 2))(x), expected)
    torch.testing.assert_close(mirrored(conv, ())(x), conv(x))


def test_progress_counts_windows_to_the_end(network):
    seen = []
    sliding_window_logits(
        np.zeros((2, 20, 20, 30), np.float32),
        network,
        WINDOW,
        3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == list(range(4 * 3 * 4 + 1)) and seen[-1][1] == 4 * 3 * 4


def test_a_full_disk_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match=r"are needed for the logits, 10 B are free"):
        LogitsStore((2, 100, 100, 100), tmp_path)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((4, 4, 4)), {}, "expected 4 and 3 axes"),
        (np.zeros((2, 4, 4, 4)), {"overlap": 1.0}, r"overlap: expected a number in \[0, 1\), found 1.0"),
    ],
)
def test_bad_arguments_are_named(image, options, message, network):
    with pytest.raises(ValueError, match=message):
        sliding_window_logits(image, network, WINDOW, 3, **options)


def test_an_error_in_the_network_frees_the_file(tmp_path):
    def broken(windows):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        sliding_window_logits(np.zeros((1, 64, 64, 64)), broken, (8, 8, 8), 2, max_memory=50_000, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


# 8 classes over 160 x 256 x 256 voxels are 320 MiB of logits; the process may grow by 96 MiB beyond the image. The
# limit is the kernel's own: allocations above it fail. Mapped files don't count, their pages go back on demand.
_BOUNDED = """
import re, resource, numpy as np, torch
from pathlib import Path
torch.set_num_threads(1)
from mamba_vision.apis.sliding_window import sliding_window_logits
predictor = lambda x: torch.cat([x + k for k in range(8)], 1)
sliding_window_logits(np.zeros((1, 32, 32, 32), np.float32), predictor, (32, 64, 64), 8).close()
image = np.zeros((1, 160, 256, 256), np.float32)
now = int(re.search(r'VmData:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (now + 96 * 2**20,) * 2)
try:
    sliding_window_logits(image, predictor, (32, 64, 64), 8, max_memory=2**30)
    raise SystemExit('the limit does not bite')
except (MemoryError, RuntimeError):
    pass
with sliding_window_logits(image, predictor, (32, 64, 64), 8, overlap=0.25, max_memory=64 * 2**20) as store:
    assert 'temporary file' in store.where
    for row in (0, 80, 159):
        np.testing.assert_allclose(store.array[:, row].mean((1, 2)), np.arange(8), atol=1e-4)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and needs the kernel's memory limit")
def test_memory_stays_below_the_limit_though_the_logits_are_larger():
    # memory that the first, failing call freed has to go back, or it counts against the second
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run([sys.executable, "-c", _BOUNDED], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("buffer", ["memory", "file", "gpu"])
def test_the_buffer_may_be_chosen(buffer, network, tmp_path):
    image = np.random.default_rng(3).normal(size=(2, 21, 18, 25)).astype(np.float32)
    limited = {"max_memory": 1000} if buffer == "memory" else {}
    with (
        sliding_window_logits(image, network, WINDOW, 3) as expected,
        sliding_window_logits(image, network, WINDOW, 3, buffer=buffer, scratch=tmp_path, **limited) as found,
    ):
        assert {"memory": "in memory", "file": "temporary file", "gpu": "on cpu"}[buffer] in found.where
        np.testing.assert_allclose(np.asarray(found.array), expected.array, atol=1e-5)
        assert found.windows == expected.windows > 0
    with pytest.raises(ValueError, match="buffer: expected one of auto, memory, file, gpu, found 'disk'"):
        sliding_window_logits(image, network, WINDOW, 3, buffer="disk")
