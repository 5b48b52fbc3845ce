import logging
import re

import pytest
import torch
from miniature import SHORT, make_work_dir
from mmengine.hooks import Hook

from mamba_vision.apis.training import train
from mamba_vision.engine import TrainingDivergedError
from mamba_vision.registry import HOOKS


@HOOKS.register_module()
class PoisonForTest(Hook):
    """Spoils the weights before iteration 3."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3:
            with torch.no_grad():
                next(runner.model.parameters()).fill_(float("nan"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_work_dir(tmp_path_factory.mktemp("hooks"), prepare=True)


def test_a_loss_that_is_no_number_stops_and_names_the_iteration(config, tmp_path):
    hooks = [{"type": "PoisonForTest"}, {"type": "FiniteLossHook"}]
    with pytest.raises(TrainingDivergedError) as error:
        train(config, work_dir=tmp_path, cfg_options={**SHORT, "custom_hooks": hooks})
    text = str(error.value)
    assert "loss is nan at iteration 4 (epoch 2)" in text
    assert re.search(r"last finite losses were \d", text)
    assert re.search(r"Cases in the batch: case_\d, case_\d", text)
    assert (tmp_path / "epoch_1.pth").is_file()
    assert not (tmp_path / "epoch_2.pth").exists()


def test_progress_pictures_and_log_lines(config, tmp_path, capsys):
    import matplotlib.image

    hooks = [{"type": "ProgressHook", "force": True}, {"type": "ProgressPlotHook"}, {"type": "ValidationPictureHook"}]
    runner = train(config, work_dir=tmp_path, cfg_options={**SHORT, "custom_hooks": hooks})
    shown = capsys.readouterr().out
    assert "epoch 2/2  iter 6/6" in shown
    assert "s/iter" in shown
    assert "epoch 2 of 2: dice 0." in shown
    assert "Epoch(train)" not in shown  # those lines go to the file while the bar is up
    log = next(tmp_path.glob("2*/*.log")).read_text()
    # The form that log parsers know.
    assert re.search(r"Epoch\(train\) +\[2\]\[3/3\] +.*lr: .*eta: .*time: .*data_time: .*loss: ", log)
    assert all(handler.level <= logging.INFO for handler in runner.logger.handlers)
    assert sorted(file.name for file in (tmp_path / "val").iterdir()) == ["epoch_1.png", "epoch_2.png"]
    for picture in (tmp_path / "progress.png", tmp_path / "val" / "epoch_2.png"):
        pixels = matplotlib.image.imread(picture)
        assert pixels.shape[0] > 200
        assert pixels.std() > 0.01
    assert runner.message_hub.runtime_info["epochs_validated"] == [1, 2]


def test_pictures_of_no_case_are_refused():
    with pytest.raises(ValueError, match="cases: expected at least 1"):
        HOOKS.build({"type": "ValidationPictureHook", "cases": 0})
