"""MMEngine's ways into a checkpoint: none runs what a hostile file holds, and the honest ones still work."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import pytest
import torch
from hostile import hostile_file
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner, load_checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mamba_vision.checkpoints import CheckpointError, install_safe_loading, load_file, load_published, save_checkpoint
from mamba_vision.models.base import Network


class Net(Network):
    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv1d(1, 2, 3)


class Foreign(BaseModule):
    """A module of another project, which knows MMEngine's initializer only."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv1d(1, 2, 3)


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 1)

    def forward(self, x: Tensor, mode: str = "tensor") -> Tensor | dict:
        loss = self.net(x).square().mean()
        return {"loss": loss} if mode == "loss" else loss


class Numbers(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.full((2,), float(index))}


@pytest.fixture
def safe_mmengine() -> Iterator[None]:
    before = mmengine_checkpoint._safe_torch_load, mmengine_checkpoint.load_url
    install_safe_loading()
    yield
    mmengine_checkpoint._safe_torch_load, mmengine_checkpoint.load_url = before


def runner(folder: Path, **kwargs: object) -> Runner:
    return Runner(
        Model(),
        work_dir=str(folder / "runs"),
        train_dataloader=DataLoader(Numbers(), batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
        experiment_name=f"checkpoints_{folder.name}",
        log_level="ERROR",
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        **kwargs,
    )


def test_the_threat_is_real(tmp_path: Path) -> None:
    """MMEngine as it comes runs the file's code. When this fails, MMEngine has been mended."""
    path, marker = hostile_file(tmp_path, Foreign().state_dict())
    spec = importlib.util.find_spec("mmengine.runner.checkpoint")
    as_it_comes = importlib.util.module_from_spec(spec)  # a copy that no other test of this process has changed
    spec.loader.exec_module(as_it_comes)
    as_it_comes.load_checkpoint(Foreign(), str(path), logger="silent")
    assert marker.exists()


def test_init_cfg_of_our_modules_is_strict_and_safe_without_any_set_up(tmp_path: Path) -> None:
    source = Net()
    path, marker = hostile_file(tmp_path, source.state_dict())
    with pytest.raises(CheckpointError, match=r"hostile\.pth is refused"):
        Net(init_cfg=dict(type="Pretrained", checkpoint=str(path))).init_weights()
    assert not marker.exists()

    good = str(save_checkpoint(tmp_path / "good.pth", source.state_dict()))
    net = Net(init_cfg=[dict(type="Pretrained", checkpoint=good)])
    net.init_weights()
    assert torch.equal(net.conv.weight, source.conv.weight)

    whole = {f"backbone.{name}": value for name, value in source.state_dict().items()} | {"head.bias": torch.zeros(2)}
    path = str(save_checkpoint(tmp_path / "whole.safetensors", whole))
    net = Net(init_cfg=dict(type="Pretrained", checkpoint=path, prefix="backbone"))
    net.init_weights()
    assert torch.equal(net.conv.weight, source.conv.weight)

    path = str(save_checkpoint(tmp_path / "part.pth", {"conv.weight": source.conv.weight}))
    with pytest.raises(CheckpointError, match=r"missing \(1\):\n    conv\.bias"):
        Net(init_cfg=dict(type="Pretrained", checkpoint=path)).init_weights()


@pytest.mark.usefixtures("safe_mmengine")
def test_other_modules_and_load_checkpoint_are_safe(tmp_path: Path) -> None:
    path, marker = hostile_file(tmp_path, Foreign().state_dict())
    with pytest.raises(CheckpointError, match="refused"):
        Foreign(init_cfg=dict(type="Pretrained", checkpoint=str(path))).init_weights()
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(Foreign(), str(path), logger="silent")
    with pytest.raises(CheckpointError, match="refused"):
        load_published(Foreign(), path)
    assert not marker.exists()


@pytest.mark.usefixtures("safe_mmengine")
@pytest.mark.parametrize("resume", [True, False])
def test_the_runner_refuses_a_hostile_file(tmp_path: Path, resume: bool) -> None:
    path, marker = hostile_file(tmp_path, Model().state_dict())
    with pytest.raises(CheckpointError, match="refused"):
        runner(tmp_path, load_from=str(path), resume=resume).train()
    assert not marker.exists()


@pytest.mark.usefixtures("safe_mmengine")
def test_the_runner_resumes_its_own_checkpoint(tmp_path: Path) -> None:
    """With a NumPy value among the logged ones, which plain weights-only loading refuses."""
    first = runner(tmp_path)
    first.message_hub.update_scalar("val/dice", float(np.float32(0.5)))
    first.message_hub.update_info("score", np.float32(0.5))
    first.train()
    saved = tmp_path / "runs" / "epoch_1.pth"
    assert set(load_file(saved)) >= {"state_dict", "optimizer", "message_hub", "meta"}
    again = runner(tmp_path, load_from=str(saved), resume=True)
    again.train()
    assert again.epoch == 2
    assert torch.equal(again.model.net.weight, first.model.net.weight)


@pytest.mark.usefixtures("safe_mmengine")
def test_addresses_are_read_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, marker = hostile_file(tmp_path, Foreign().state_dict())

    def fetch(url: str, target: str, *args: object) -> None:
        Path(target).write_bytes(path.read_bytes())

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint(Foreign(), "https://example.org/hostile.pth", logger="silent")
    with pytest.raises(CheckpointError, match="refused"):
        load_published(Foreign(), "https://example.org/other.pth")
    assert not marker.exists()
