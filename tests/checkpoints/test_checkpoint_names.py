"""Finding weights in wrappers, and renaming them both ways."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mamba_vision.checkpoints import CheckpointError, find_state_dict, published_names, rename
from mamba_vision.checkpoints.renaming import matches, rename_one

STATE = {"a.weight": torch.zeros(2), "b.bias": torch.ones(3)}


@pytest.mark.parametrize(
    "checkpoint",
    [
        STATE,
        {"state_dict": STATE, "meta": {"epoch": 3}},
        {"network_weights": STATE, "optimizer_state": {"state": {}}, "current_epoch": 7, "init_args": {"plans": {}}},
        {"model": STATE, "model_ema": {"a.weight": torch.ones(2)}, "optimizer": {}, "epoch": 1},
        {"epoch": 3, "model": {"state_dict": STATE}},
        {"params": STATE},
        {"module": STATE},
        {f"module.{name}": value for name, value in STATE.items()},
        {"state_dict": {f"module._orig_mod.{name}": value for name, value in STATE.items()}},
        {"model": {**STATE, "num_updates": 5}},
    ],
    ids=["plain", "mmengine", "nnunet", "deit", "nested", "basicsr", "accelerate", "ddp", "compiled", "counter"],
)
def test_the_usual_wrappers(checkpoint: dict) -> None:
    found = find_state_dict(checkpoint)
    assert list(found) == list(STATE) and torch.equal(found["b.bias"], STATE["b.bias"])


@pytest.mark.parametrize("key", ["params_ema", "ema_model"])
def test_a_moving_average_alone_needs_no_option(key: str) -> None:
    checkpoint = {key: {"module." + name: value for name, value in STATE.items()}, "iter": 4}
    assert set(find_state_dict(checkpoint)) == set(STATE)


@pytest.mark.parametrize("key", ["model_ema", "ema", "state_dict_ema", "params_ema"])
def test_moving_average_by_option(key: str) -> None:
    averaged = {"module." + name: value + 5 for name, value in STATE.items()}
    checkpoint = {"model": STATE, key: averaged}
    assert find_state_dict(checkpoint)["a.weight"].sum() == 0
    assert find_state_dict(checkpoint, ema=True)["a.weight"].sum() == 10


def test_mmengine_saves_the_average_as_the_weights() -> None:
    mmengine = {
        "state_dict": {"a": torch.ones(1)},
        "ema_state_dict": {"module.a": torch.zeros(1), "steps": torch.ones(1)},
    }
    assert find_state_dict(mmengine, ema=True)["a"] == find_state_dict(mmengine)["a"] == 1  # swapped as it is saved


def test_nothing_found_says_what_was() -> None:
    with pytest.raises(CheckpointError, match=r"run\.pth holds no state dict: found epoch, optimizer"):
        find_state_dict({"epoch": 1, "optimizer": {"lr": 0.1}}, source="run.pth")
    with pytest.raises(CheckpointError, match="no moving average: found model"):
        find_state_dict({"model": STATE}, ema=True)


def test_a_prefix_that_only_some_names_carry_stays() -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(find_state_dict(state)) == ["module.a", "b"]


RENAMES = (("layers.*.mixer.**", "blocks.*.mamba.**"), ("norm_f.*", "norm.*"), ("**.gamma", "**.scale"))


def test_rename_both_ways() -> None:
    theirs = ["layers.3.mixer.in_proj.weight", "norm_f.weight", "head.weight", "layers.0.mixer.gamma"]
    ours = ["blocks.3.mamba.in_proj.weight", "norm.weight", "head.weight", "blocks.0.mamba.scale"]
    assert list(rename(dict.fromkeys(theirs, 0), RENAMES)) == ours
    assert list(rename(dict.fromkeys(ours, 0), RENAMES, backwards=True)) == theirs


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.from_regex(r"[a-z_]{1,6}(\.[a-z0-9_]{1,6}){0,3}", fullmatch=True))
def test_renaming_back_undoes_it(index: int, rest: str) -> None:
    name = f"layers.{index}.mixer.{rest}"
    if not rest.endswith("scale"):
        assert rename_one(rename_one(name, RENAMES), RENAMES, backwards=True) == name


def test_one_star_stays_within_a_part() -> None:
    assert matches("a.b.c", ["a.*.c"]) and not matches("a.b.b.c", ["a.*.c"]) and matches("a.b.b.c", ["a.**.c"])
    assert not matches("axbxc", ["a.b.c"])


def test_bad_tables() -> None:
    with pytest.raises(ValueError, match="same stars"):
        rename_one("a.b", (("a.*", "b"),))
    with pytest.raises(CheckpointError, match=r"a\.x and b\.x are both renamed to c\.x"):
        rename({"a.x": 0, "b.x": 0}, (("a.*", "c.*"), ("b.*", "c.*")))


def test_published_names_of_a_model() -> None:
    class Net(nn.Module):
        published_renames = (("stem.**", "first.**"),)

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)

    assert published_names(Net()) == {"first.weight": "stem.weight", "first.bias": "stem.bias"}
