"""Strict loading: everything in its place, or a message that says what is not; and saving, whole or not at all."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mamba_vision.checkpoints import CheckpointError, load_file, load_published, save_checkpoint


class Net(nn.Module):
    """A body and a head; the published names of the body differ, and it is stored twice."""

    published_renames = (("backbone.**", "body.**"),)
    published_ignored = ("copy.**",)

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, classes)

    def values(self) -> list[Tensor]:
        return [value.clone() for value in self.state_dict().values()]


def published(net: Net) -> dict[str, Tensor]:
    state = {name.replace("body.", "backbone."): value.clone() for name, value in net.state_dict().items()}
    return {**state, "copy.backbone.weight": state["backbone.weight"]}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_loads_and_accounts(tmp_path: Path, suffix: str) -> None:
    source, net = Net(), Net()
    report = load_published(net, save_checkpoint(tmp_path / f"a{suffix}", published(source)))
    assert all(torch.equal(a, b) for a, b in zip(net.values(), source.values()))
    assert report.renamed == {"backbone.weight": "body.weight", "backbone.bias": "body.bias"}
    assert report.ignored == ["copy.backbone.weight"] and len(report.loaded) == 4


def test_own_names_load_too() -> None:
    source, net = Net(), Net()
    load_published(net, {"state_dict": source.state_dict()})
    assert torch.equal(net.body.weight, source.body.weight)


def test_error_lists_missing_left_over_and_shapes_and_changes_nothing() -> None:
    net, state = Net(), published(Net(classes=5))
    before = net.values()
    del state["backbone.bias"]
    state["neck.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        load_published(net, state)
    text = str(error.value)
    assert "does not fit Net" in text
    assert "missing (1):\n    body.bias" in text and "left over (1):\n    neck.weight" in text
    assert "head.weight: found (5, 4), expected (2, 4)" in text and "head.bias: found (5,), expected (2,)" in text
    assert all(torch.equal(a, b) for a, b in zip(net.values(), before))


def test_another_network_is_named_so(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "resnet.pth", nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict())
    with pytest.raises(CheckpointError, match=r"resnet\.pth does not fit Net(.|\n)*checkpoint of another network"):
        load_published(Net(), path)


def test_other_settings_are_named_so() -> None:
    with pytest.raises(CheckpointError, match="same network with other settings"):
        load_published(Net(classes=3), published(Net()))


def test_long_lists_are_cut() -> None:
    state = {f"x{i}": torch.zeros(1) for i in range(40)}
    with pytest.raises(CheckpointError, match=r"left over \(40\)(.|\n)*and 28 more"):
        load_published(Net(), state)


def test_prefix() -> None:
    source, net = Net(), Net()
    whole = {f"network.{name}": value for name, value in published(source).items()} | {"loss.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"with prefix='network\.'"):
        load_published(net, {f"network.{name}": value for name, value in source.state_dict().items()})
    load_published(net, whole, prefix="network.")
    assert torch.equal(net.head.weight, source.head.weight)
    with pytest.raises(CheckpointError, match="no name that begins with 'back'"):
        load_published(net, {"a": torch.zeros(1)}, prefix="back")


def test_skip_keeps_a_new_head() -> None:
    source, net = Net(classes=7), Net(classes=2)
    head = net.head.weight.clone()
    report = load_published(net, published(source), skip=("head.*",))
    assert torch.equal(net.body.weight, source.body.weight) and torch.equal(net.head.weight, head)
    assert report.skipped == ["head.weight", "head.bias"] and "head.weight" not in report.loaded


def test_moving_average(tmp_path: Path) -> None:
    raw, averaged, net = Net(), Net(), Net()
    torch.save({"model": published(raw), "model_ema": published(averaged)}, tmp_path / "a.pth")
    load_published(net, tmp_path / "a.pth", ema=True)
    assert torch.equal(net.body.weight, averaged.body.weight)


def test_half_precision_file_into_float32() -> None:
    source, net = Net(), Net()
    load_published(net, {name: value.half() for name, value in published(source).items()})
    assert net.body.weight.dtype == torch.float32 and torch.equal(net.body.weight, source.body.weight.half().float())


def test_save_is_plain_and_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = torch.zeros(1000)
    path = save_checkpoint(tmp_path / "a.pth", {"view": big[:2]}, meta={"classes": ["x"]})
    assert path.stat().st_size < 3000  # the view did not bring its storage along
    assert torch.load(path, weights_only=True)["meta"] == {"classes": ["x"]}

    def breaks(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", breaks)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"view": torch.ones(2)})
    assert load_file(path)["state_dict"]["view"].sum() == 0 and [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_save_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in one of \.pth"):
        save_checkpoint(tmp_path / "a.zip", {})
    with pytest.raises(ValueError, match="epoch is a int"):
        save_checkpoint(tmp_path / "a.pth", {"epoch": 3})


class Fitting(Net):
    """Refuses what it cannot fit, in words that know nothing of files."""

    def fit_published(self, name: str, value: Tensor) -> Tensor:
        raise ValueError(f"{name}: found {len(value)} rows")


def test_what_cannot_be_fitted_is_told_with_its_file(tmp_path: Path) -> None:
    file = save_checkpoint(tmp_path / "a.pth", published(Net()))
    with pytest.raises(CheckpointError, match=r"a\.pth: .*found \d rows"):
        load_published(Fitting(), file)
