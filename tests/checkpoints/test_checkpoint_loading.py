"""Reading files: what trainers write is read, what could run code or is damaged is refused by name."""

import argparse
import io
import pickle
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import WritesMarker, hostile_file
from mmengine.logging import HistoryBuffer

from mamba_vision.checkpoints import CheckpointError, load_file
from mamba_vision.checkpoints.loading import load_stream

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2, dtype=torch.bfloat16)}


def test_plain_state_dict(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    loaded = load_file(tmp_path / "a.pth")
    assert torch.equal(loaded["weight"], STATE["weight"]) and loaded["bias"].dtype == torch.bfloat16


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "a.safetensors")
    assert torch.equal(load_file(tmp_path / "a.safetensors")["weight"], STATE["weight"])


def test_what_trainers_keep_beside_the_weights(tmp_path: Path) -> None:
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    history.update(float(np.float32(2)))
    kept = {
        "history": history,
        "float32": np.float32(0.5),
        "_best_ema": np.float64(0.875),  # nnU-Net
        "array": np.arange(5, dtype=np.int16),
        "text": np.array(["a", "bc"]),
        "flag": np.bool_(True),
        "args": argparse.Namespace(lr=0.1, output=Path("runs/a")),
        "device": torch.device("cpu"),
        "nested": [{"a": (1, None, "x")}],
    }
    torch.save({"state_dict": STATE, **kept}, tmp_path / "a.pth")
    loaded = load_file(tmp_path / "a.pth")
    assert loaded["history"].current() == 2 and loaded["history"].statistics("min") == 0.25
    assert loaded["float32"] == np.float32(0.5) and loaded["array"].dtype == np.int16
    assert loaded["args"].lr == 0.1 and str(loaded["args"].output) == "runs/a"
    assert loaded["nested"] == kept["nested"] and loaded["text"].tolist() == ["a", "bc"]


@pytest.mark.parametrize("name", ["yacs.config.CfgNode", "omegaconf.dictconfig.DictConfig"])
def test_configurations_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """VMamba's and ZigMa's trainers keep theirs: read without their packages, and without their classes' code."""
    package, _, kind = name.rpartition(".")
    bases = (dict,) if "yacs" in name else ()
    config = type(kind, bases, {"__module__": package, "__setstate__": lambda *_: pytest.fail("ran")})
    for module in (package.partition(".")[0], package):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    setattr(sys.modules[package], kind, config)
    made = config()
    made.__dict__.update(_content={"lr": 0.1}, _types=Any, _cache=defaultdict(dict, a=1))
    if bases:
        made.update(LR=0.1, MODEL=config(NAME="tiny"))
    torch.save({"model": STATE, "config": made}, tmp_path / "a.pth")
    monkeypatch.undo()
    loaded = load_file(tmp_path / "a.pth")
    assert torch.equal(loaded["model"]["weight"], STATE["weight"])
    assert dict(loaded["config"]) == ({"LR": 0.1, "MODEL": {"NAME": "tiny"}} if bases else {})


def test_history_of_older_mmengine(tmp_path: Path) -> None:
    """Older versions kept the statistics' methods in the object, which a pickle names through getattr."""
    history = HistoryBuffer([1.0], [1])
    history._statistics_methods = {"max": HistoryBuffer.max}
    torch.save({"message_hub": {"loss": history}, "state_dict": STATE}, tmp_path / "a.pth")
    assert load_file(tmp_path / "a.pth")["message_hub"]["loss"].statistics("max") == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_file_is_refused_by_name(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "marker"
    file = {"state_dict": STATE, "x": WritesMarker(marker)}
    torch.save(file, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pth is refused: it asks for .*open"):
        load_file(tmp_path / "evil.pth")
    assert not marker.exists()


class Reaches:
    """Names a function that is let in, with arguments that are not."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "call",
    [
        (getattr, HistoryBuffer, "__init__"),
        (getattr, HistoryBuffer.update, "__globals__"),
        (getattr, torch.device("cpu"), "__class__"),
        (np.dtype, "O"),
        (eval, "1"),
    ],
    ids=["method", "globals", "class", "object array", "eval"],
)
def test_allowed_names_do_no_more_than_they_must(tmp_path: Path, call: tuple) -> None:
    torch.save({"x": Reaches(*call)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="is refused"):
        load_file(tmp_path / "a.pth")


def test_whole_model_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"asks for .*Linear.*plain state dict"):
        load_file(tmp_path / "model.pth")


def test_hostile_plain_pickle(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(WritesMarker(tmp_path / "marker"), protocol=2))
    with pytest.raises(CheckpointError):
        load_file(tmp_path / "a.pkl")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("keep", [0.5, 0.99])
@pytest.mark.parametrize("name", ["a.pth", "old.pth", "a.safetensors"])
def test_truncated(tmp_path: Path, name: str, keep: float) -> None:
    from safetensors.torch import save

    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=name == "a.pth")
    data = save(STATE) if name.endswith("safetensors") else buffer.getvalue()
    (tmp_path / name).write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CheckpointError, match=f"{name}.*(truncated|damaged|not a checkpoint)"):
        load_file(tmp_path / name)


@pytest.mark.parametrize(
    "data", [b"<!DOCTYPE html><html>404</html>", b"\x00" * 64, b"version https://git-lfs", b"PK\x03"]
)
def test_no_checkpoint(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "page.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"page\.pth") as error:
        load_file(tmp_path / "page.pth")
    assert "weights_only" not in str(error.value)  # PyTorch's advice to load without protection


def test_empty_missing_folder_and_other_content(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match="empty"):
        load_file(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_file(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="folder"):
        load_file(tmp_path)
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        load_file(tmp_path / "tensor.pth")


def test_stream(tmp_path: Path) -> None:
    path, marker = hostile_file(tmp_path, STATE)
    with pytest.raises(CheckpointError, match="refused"):
        load_stream(io.BytesIO(path.read_bytes()))
    assert not marker.exists()


def test_the_allowed_names_are_not_left_behind(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save(STATE, tmp_path / "a.pth")
    load_file(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before
