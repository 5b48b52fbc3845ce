"""tools/search.py: from a supernet to a configuration that trains as it is; resumed, from a checkpoint, and refused."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.direction_search import checkpoint_weights, search, search_result
from mamba_vision.apis.training import train
from mamba_vision.apis.training_options import TrainOptions
from mamba_vision.engine.hooks.direction_search import weights_table
from mamba_vision.models.backbones import LocalVim, LocalVMamba
from mamba_vision.models.mixers.direction_merge import direction_weights
from mamba_vision.utils import project_folder

TOOL = project_folder("tools") / "search.py"
CONFIG = project_folder("configs") / "localmamba" / "local-vim-search_digits.py"
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
# Two epochs of two iterations of two pictures, on two narrow layers.
SHORT = {
    "model.backbone.arch": {"embed_dims": 16, "num_layers": 2},
    "model.head.in_channels": 16,
    "train_dataloader.batch_size": 2,
    "train_dataloader.dataset.indices": 4,
    "val_dataloader.dataset.indices": 4,
    "train_cfg.max_epochs": 2,
    "train_cfg.val_interval": 2,
}


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=300, check=False)


def options(folder: Path, **more) -> TrainOptions:
    given = {"cfg_options": SHORT, **more}
    return TrainOptions(work_dir=folder, **given)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """What the found directions go into: the shipped recipe, as narrow as the search."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.py"
    load_config(CONFIG.with_name("local-vim_digits.py"), SHORT).dump(path)
    return path


@pytest.fixture(scope="module")
def searched(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("search")
    return search(CONFIG, options(folder), keep=3, recipe=recipe)


def test_what_a_search_leaves(searched):
    folder = searched.config.parent
    for name in ("directions.png", "direction_curves.png", "epoch_2.pth", "found.py"):
        assert (folder / name).is_file()
    course = json.loads((folder / "directions.json").read_text())
    assert course["iterations"] == [0, 1, 2, 3, 4] and np.shape(course["weights"]) == (5, 2, 8)
    np.testing.assert_allclose(np.sum(course["weights"], axis=-1), 1, atol=1e-5)
    assert course["weights"][0] != course["weights"][-1]
    assert course["found"] == [" ".join(names) for names in searched.directions]
    assert [len(names) for names in searched.directions] == [3, 3]


def test_the_log_tells_layer_by_layer(searched):
    log = next(searched.config.parent.glob("*/*.log")).read_text()
    assert "Strongest directions after epoch 2" in log and "layer  1: " in log


def test_weights_follow_the_checkpoint(searched, recipe, tmp_path):
    """The weights of the last iteration are those of the checkpoint, which give the same network without training."""
    file = searched.config.parent / "epoch_2.pth"
    again = search_result(CONFIG, file, options(tmp_path), keep=3, recipe=recipe)
    np.testing.assert_allclose(again.history.weights[-1], searched.history.weights[-1], atol=1e-6)
    assert again.directions == searched.directions and (tmp_path / "directions.png").is_file()


def test_the_found_config_trains_as_it_is(searched):
    cfg = load_config(searched.config)
    assert cfg.model.backbone.directions == [" ".join(names) for names in searched.directions]
    assert searched.config.read_text().startswith("# recipe.py with the directions that a search found, after 4 iter")
    runner = train(searched.config)
    backbone = runner.model.backbone
    assert [layer.mixer.scan.labels for layer in backbone.layers] == searched.directions
    assert runner.iter == 4 and (searched.config.parent / "found" / "epoch_2.pth").is_file()


def test_a_search_goes_on(searched, tmp_path, recipe):
    """Stopped after an epoch and resumed: one course, the same as in one go."""
    search(CONFIG, options(tmp_path, cfg_options={**SHORT, "train_cfg.max_epochs": 1}), recipe=recipe)
    found = search(CONFIG, options(tmp_path, resume="auto", extend=True), keep=3, recipe=recipe)
    assert found.history.iterations == searched.history.iterations == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.history.weights, searched.history.weights, atol=1e-6)


def test_the_tool(tmp_path, recipe):
    words = [f"{key}={value!r}" for key, value in SHORT.items()]
    shown = run(TOOL, CONFIG, "--work-dir", tmp_path, "--recipe", recipe, "--cfg-options", *words)
    assert shown.returncode == 0, shown.stderr
    assert "direction weights after 4 iterations" in shown.stdout
    assert f"Next: python tools/train.py {tmp_path / 'found.py'}" in shown.stdout
    assert "paramwise_options" not in shown.stdout
    refused = run(TOOL, CONFIG.with_name("local-vim_digits.py"), "--work-dir", tmp_path / "no")
    assert refused.returncode == 1 and "model.backbone does not search" in refused.stderr
    assert not (tmp_path / "no").exists()


def test_the_live_table(searched):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(weights_table(searched.history))
    shown = console.export_text()
    for layer, row in enumerate(searched.history.weights[-1]):
        line = next(line for line in shown.splitlines() if line.split()[:1] == [str(layer)])
        np.testing.assert_allclose([float(word) for word in line.split()[1:]], 100 * row, atol=0.06)


def test_the_bar_with_the_table(tmp_path, recipe, capsys):
    hooks = [dict(type="mamba_vision.DirectionSearchHook", force=True, points=2, every=0.0)]
    found = search(CONFIG, options(tmp_path, cfg_options={**SHORT, "custom_hooks": hooks}), recipe=recipe)
    shown = capsys.readouterr().out
    assert "iter 4/4" in shown and "w2_flip" in shown
    assert found.history.iterations == [0, 2, 4]


@pytest.mark.parametrize(
    ("keep", "changes", "message"),
    [
        (9, {}, "keep: found 9"),
        (4, {"model.backbone.search": False}, "does not search"),
        (4, {"model.backbone.arch": {"embed_dims": 16, "num_layers": 3}}, "for 3 layers, expected 2"),
    ],
)
def test_refused_before_training(tmp_path, recipe, keep, changes, message):
    with pytest.raises(ValueError, match=message):
        search(CONFIG, options(tmp_path / "out", cfg_options={**SHORT, **changes}), keep=keep, recipe=recipe)
    assert not (tmp_path / "out").exists()


def test_checkpoints_that_are_no_supernets(searched, tmp_path, recipe):
    torch.save({"model": LocalVim("test", img_size=32).state_dict()}, tmp_path / "plain.pth")
    with pytest.raises(ValueError, match=r"plain\.pth: found no name that ends in"):
        search_result(CONFIG, tmp_path / "plain.pth", options(tmp_path), recipe=recipe)
    torch.save({"model": LocalVim("test", img_size=32, search=True).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="of 3 layers and 8 candidates, expected 2 and 8"):
        search_result(CONFIG, tmp_path / "other.pth", options(tmp_path), recipe=recipe)


def test_layers_of_a_published_checkpoint_are_in_the_networks_order():
    """Numbers are sorted as numbers, not as text; names as in both systems' published files."""
    vim = LocalVim(dict(embed_dims=16, num_layers=11), img_size=32, search=True, mixer=dict(d_state=1))
    for model in (vim, LocalVMamba(dict(dims=8, depths=(1, 2, 11)), out_indices=(0,), search=True)):
        state = dict(sorted(model.state_dict().items()))
        torch.testing.assert_close(checkpoint_weights(state), direction_weights(model))
    with pytest.raises(ValueError, match="different numbers"):
        checkpoint_weights({"a.0.multi_scan.weights": torch.ones(8), "a.1.multi_scan.weights": torch.ones(4)})
