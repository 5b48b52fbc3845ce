"""Which configuration and weights a work folder gives, and what is said when they don't fit."""

import json
import os
import pickle
import shutil

import pytest
import torch
from segmentation_case import make_work_dir

from mamba_vision.apis.volume_model import checkpoint_hash, choose_device, find_checkpoint, init_volume_model
from mamba_vision.checkpoints import CheckpointError


def _age(path, seconds):
    path.touch()
    os.utime(path, (1e9 - seconds, 1e9 - seconds))


def test_a_work_folder_is_enough_even_moved(tmp_path):
    folder = make_work_dir(tmp_path / "planned")
    shutil.move(folder, tmp_path / "moved")
    model = init_volume_model(tmp_path / "moved", device="cpu")
    assert model.checkpoint == tmp_path / "moved" / "best_dice_epoch_3.pth"
    assert not model.training and model.plan["dataset"] == "blobs"
    assert model.network.bias.tolist() == [0.0, -1.0, -4.0]
    assert init_volume_model(str(tmp_path / "moved" / "config.py")).plan == model.plan
    assert len(checkpoint_hash(model.checkpoint)) == 64


def test_plan_beside_the_configuration_wins_over_the_path_inside(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    text = (folder / "config.py").read_text().replace("f'{work_dir}/plan.json'", "'gone/plan.json'")
    (folder / "config.py").write_text(text)
    assert init_volume_model(folder).plan["dataset"] == "blobs"


def test_the_plan_that_the_weights_were_trained_with_wins(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    checkpoint = torch.load(folder / "best_dice_epoch_3.pth", weights_only=True)
    checkpoint["meta"]["plan"] = json.loads((folder / "plan.json").read_text()) | {"dataset": "as trained"}
    torch.save(checkpoint, folder / "best_dice_epoch_3.pth")
    assert init_volume_model(folder).plan["dataset"] == "as trained"


def test_the_folder_of_a_fold(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    (folder / "fold_1").mkdir()
    text = (folder / "config.py").read_text().replace("f'{work_dir}/plan.json'", "'gone/plan.json'")
    for age, name in enumerate(("20260102_000000.py", "20260101_000000.py")):
        (folder / "fold_1" / name).write_text(text if age == 0 else "broken")
        os.utime(folder / "fold_1" / name, (1e9 - age, 1e9 - age))
    shutil.move(folder / "best_dice_epoch_3.pth", folder / "fold_1" / "epoch_9.pth")
    model = init_volume_model(folder / "fold_1")
    assert model.plan["dataset"] == "blobs" and model.checkpoint.name == "epoch_9.pth"


def test_best_then_last_then_newest(tmp_path):
    _age(tmp_path / "epoch_1.pth", 30)
    _age(tmp_path / "epoch_2.pth", 50)
    assert find_checkpoint(tmp_path).name == "epoch_1.pth"
    (tmp_path / "last_checkpoint").write_text("somewhere/else/epoch_2.pth")  # the folder has been moved since
    assert find_checkpoint(tmp_path).name == "epoch_2.pth"
    _age(tmp_path / "best_dice_epoch_1.pth", 90)
    _age(tmp_path / "best_dice_epoch_2.pth", 80)
    assert find_checkpoint(tmp_path).name == "best_dice_epoch_2.pth"


def test_without_a_checkpoint_it_says_how_to_train(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    (folder / "best_dice_epoch_3.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .* tools/train.py .*config.py"):
        init_volume_model(folder)


def test_missing_things_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such work folder or configuration"):
        init_volume_model(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"expected config.py.*found none"):
        init_volume_model(tmp_path)
    (tmp_path / "weights.pth").touch()
    with pytest.raises(FileNotFoundError, match="expected a work folder or a configuration"):
        init_volume_model(tmp_path / "weights.pth")
    folder = make_work_dir(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        init_volume_model(folder, folder / "other.pth")


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"network.encoder.weight": torch.zeros(3)}}, other)
    with pytest.raises(CheckpointError, match=r"other.pth: .*does not fit(.|\n)*missing(.|\n)*network.weight"):
        init_volume_model(folder, other)
    torch.save({"state_dict": {"network.weight": torch.zeros(3, 2, 1, 1, 1), "network.bias": torch.zeros(3)}}, other)
    with pytest.raises(CheckpointError, match=r"network.weight: found \(3, 2, 1, 1, 1\), expected \(3, 1, 1, 1, 1\)"):
        init_volume_model(folder, other)


def test_weights_of_the_network_alone_load(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    state = torch.load(folder / "best_dice_epoch_3.pth", weights_only=True)["state_dict"]
    alone = {"network_weights": {name.removeprefix("network."): value + 1 for name, value in state.items()}}
    torch.save(alone, tmp_path / "nnunet.pth")
    assert init_volume_model(folder, tmp_path / "nnunet.pth").network.bias.tolist() == [1.0, 0.0, -3.0]


def test_a_hostile_checkpoint_is_not_run(tmp_path):
    folder = make_work_dir(tmp_path / "a")

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    (folder / "best_dice_epoch_4.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    with pytest.raises(CheckpointError):
        init_volume_model(folder)
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_plan_is_refused(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    (folder / "plan.json").unlink()
    text = (folder / "config.py").read_text().replace("f'{work_dir}/plan.json'", "None")
    (folder / "config.py").write_text(text)
    with pytest.raises(ValueError, match=r"config.py: no plan, neither in the checkpoint nor as plan.json beside it"):
        init_volume_model(folder)


def test_a_plan_that_is_no_plan_is_refused(tmp_path):
    folder = make_work_dir(tmp_path / "a")
    plan = json.loads((folder / "plan.json").read_text())
    plan["spacin"] = plan.pop("spacing")
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=r"no spacing and unknown spacin"):
        init_volume_model(folder)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device: 'abacus' cannot be used here"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        assert choose_device(None).type == "cpu"
        with pytest.raises(ValueError, match="device: 'cuda' cannot be used here"):
            choose_device("cuda")
