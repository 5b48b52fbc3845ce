"""What happens to a training on its way: limits of time and memory, another length, losses that are no numbers."""

import json

import numpy as np
import pytest
import torch
from miniature import make_work_dir, unformatted
from mmengine.config import Config

from mamba_vision.apis.memory_advice import OutOfMemoryError, is_out_of_memory, out_of_memory, smaller_patch
from mamba_vision.apis.training import train
from mamba_vision.apis.training_options import TrainOptions, configure
from mamba_vision.engine import TrainingDivergedError, TrainingInterrupted
from mamba_vision.models.networks import UMamba
from mamba_vision.volumes.cache import load_case

TWO = {"epochs": 2, "iterations": 2, "train_cfg.val_interval": 2, "custom_hooks": []}


@pytest.fixture(autouse=True)
def fast():
    with unformatted():
        yield


@pytest.fixture
def config(tmp_path):
    return make_work_dir(tmp_path, prepare=True)


def test_another_length_is_asked_for_and_the_rate_is_that_of_the_new_schedule(config, capsys):
    by_epoch = {"param_scheduler": dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=3, by_epoch=True)}
    train(config, cfg_options={**TWO, **by_epoch})
    longer = {**TWO, "epochs": 4, "param_scheduler.end": 5}
    longer["param_scheduler"] = dict(type="PolyLR", power=0.9, eta_min=0, begin=0, end=5, by_epoch=True)
    del longer["param_scheduler.end"]
    with pytest.raises(ValueError, match=r"planned for 2 epochs and would go on to 4.*Add --extend") as error:
        train(config, resume="auto", cfg_options=longer)
    assert "0 where it stopped, 0.00161 with the new schedule" in str(error.value)
    runner = train(config, resume="auto", extend=True, cfg_options=longer)
    assert runner.epoch == 4
    rates = runner.message_hub.log_scalars["train/lr"].data[0]
    expected = [3e-3 * (1 - epoch / 4) ** 0.9 for epoch in (2, 3)]
    assert rates[4::2] == pytest.approx(expected, rel=1e-6)
    train(config, resume="auto", cfg_options=longer)  # nothing left to do, nothing to ask


def test_the_limit_of_time_saves_and_stops(config):
    with pytest.raises(
        TrainingInterrupted, match="stopped by the limit of time in epoch 1, after 1 iterations"
    ) as stop:
        train(config, max_hours=1e-9, cfg_options=TWO)
    assert stop.value.status == 124 and stop.value.checkpoint.is_file()
    assert train(config, resume="auto", max_hours=1, cfg_options=TWO).iter == 4


def test_a_loss_that_is_no_number_leaves_its_batch(config):
    for case in ("case_0", "case_1"):
        folder = load_case(config.parent / "preprocessed", case).folder
        image = np.load(folder / "image.npy")
        np.save(folder / "image.npy", np.full_like(image, np.nan))
    hooks = {"custom_hooks": [dict(type="FiniteLossHook")]}
    with pytest.raises(TrainingDivergedError, match=r"no loss was finite.*The batch is saved as .*nan_batch.pt"):
        train(config, cfg_options={**TWO, **hooks})
    saved = torch.load(config.parent / "nan_batch.pt", weights_only=True)
    assert len(saved["inputs"]) == 2 and saved["inputs"][0].isnan().all() and len(saved["cases"]) == 2
    assert saved["labels"][0].shape == (16, 16, 16)


@pytest.fixture
def little_memory(monkeypatch):
    """A network that has room for one patch."""
    forward = UMamba.forward

    def limited(self, x):
        if len(x) > 1 and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")
        return forward(self, x)

    monkeypatch.setattr(UMamba, "forward", limited)


def test_out_of_memory_says_what_would_fit(config, little_memory):
    with pytest.raises(OutOfMemoryError) as error:
        train(config, cfg_options=TWO)
    text = str(error.value)
    assert "batches of 2 with patches of 16 x 16 x 16 do not fit" in text and "Tried to allocate 9 GiB" in text
    assert "batch_size=1, or --auto-batch" in text and "--amp" in text


def test_auto_batch_halves_until_it_fits(config, little_memory, capsys):
    runner = train(config, auto_batch=True, cfg_options=TWO)
    assert runner.iter == 4 and runner.train_dataloader.batch_sampler.batch_size == 1
    assert "Again with batches of 1" in capsys.readouterr().out


def test_a_smaller_patch_is_what_the_network_divides():
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
    found = smaller_patch((40, 224, 192), {"strides": strides})
    assert np.prod(found) <= 0.7 * 40 * 224 * 192 and all(side % step == 0 for side, step in zip(found, (4, 8, 8)))
    assert smaller_patch((8, 8, 8), {"strides": strides}) is None
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    cfg = Config(dict(model={}, train_dataloader=dict(batch_size=1), optim_wrapper=dict(type="AmpOptimWrapper")))
    assert str(out_of_memory(cfg, RuntimeError("full"))) == "out of memory: batches of 1 do not fit (full)"


def test_tensorboard_is_written_where_it_is_installed(config, monkeypatch):
    kinds = [one.type for one in configure(config, TrainOptions()).visualizer.vis_backends]
    assert kinds == ["LocalVisBackend", "TensorboardVisBackend"]
    monkeypatch.setattr("mamba_vision.apis.training_options.find_spec", lambda name: None)
    assert len(configure(config, TrainOptions()).visualizer.vis_backends) == 1


def test_a_page_tells_how_it_went(config):
    options = {**TWO, "custom_hooks": [dict(type="TrainingReportHook", cases=1)]}
    train(config, cfg_options=options)
    page = (config.parent / "training" / "index.html").read_text()
    for text in ("UMamba, 0.", "<td>2 of 2, 4 iterations</td>", "../progress.png", "<td>case_2</td>", "ball", "best"):
        assert text in page
    assert (config.parent / "training" / "worst_cases.png").stat().st_size > 1000
    assert json.loads((config.parent / "splits.json").read_text())[0]["val"] == ["case_2"]
