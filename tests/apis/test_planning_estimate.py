"""How long a plan takes here."""

from dataclasses import replace

import pytest
import torch
from miniature import make_plan

from mamba_vision.apis import planning_estimate
from mamba_vision.apis.planning_estimate import Estimate, estimate_training, memory_problem


def plan(**changes):
    network = {
        "type": "PlainUNet", "in_channels": 1, "num_classes": 3, "features": [2, 4, 4], "patch_size": [64, 64, 64],
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "deep_supervision": True,
    }  # fmt: skip
    return replace(make_plan(), network=network, patch_size=(64, 64, 64), **changes)


def test_time_follows_from_a_part_of_a_patch(monkeypatch):
    shapes = []
    monkeypatch.setattr(planning_estimate, "_time", lambda model, shape, device: shapes.append(shape) or 0.5)
    found = estimate_training(plan(batch_size=3), "default", "cpu")
    assert shapes == [(1, 1, 32, 32, 32)]
    assert found.seconds == pytest.approx(0.5 * 3 * 8) and found.gigabytes is None
    assert found.hours == pytest.approx(1000 * 250 * 12 / 3600)
    assert memory_problem(plan(), found) is None


def test_steps_are_really_trained():
    found = estimate_training(replace(plan(), patch_size=(16, 16, 16)), "fast", "cpu")
    assert 0 < found.seconds < 20 and "CPU thread" in found.device


def test_words():
    assert Estimate(1.0, 0.5, None, "x").describe() == "about 30 minutes on x"
    assert Estimate(1.0, 13.2, 6.04, "x").describe() == "about 13 hours on x, 6.0 GB of its memory"
    assert Estimate(1.0, 2400.0, None, "x").describe() == "about 100 days on x"
    assert Estimate(None, None, None, "x").describe() == "does not fit into x"


def test_a_gpu_that_cannot_hold_the_plan_is_told(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(planning_estimate, "_time", full)
    found = estimate_training(plan(), "default", "cpu")
    assert found.seconds is None
    small = type("Properties", (), {"total_memory": 6 * 2**30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: small)
    problem = memory_problem(plan(), found)
    assert problem.severity == "warning" and "6 GB, too little for batches of 2" in problem.found
    assert "--vram 3" in problem.cure
