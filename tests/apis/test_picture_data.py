"""nnU-Net's 2-D data sets: colour pictures planned, trained, tested and segmented, label pictures coming out."""

import importlib.util
import json

import numpy as np
import pytest
from miniature import unformatted
from PIL import Image
from skimage.data import coffee

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.planning import DatasetError, plan_dataset
from mamba_vision.apis.training import train
from mamba_vision.apis.training_options import TrainOptions
from mamba_vision.apis.volume_testing import evaluate_volumes
from mamba_vision.utils.paths import project_folder


@pytest.fixture
def data(tmp_path):
    """Five pieces of a photograph and one to test on, of several sizes; the label is what is bright."""
    photograph = coffee()
    folder = tmp_path / "Dataset001_Coffee"
    for number in range(6):
        piece = photograph[40 * number :, 60 * number :][:96, : 90 - number]
        bright = (piece[..., 0] > np.median(piece[..., 0])).astype(np.uint8)
        for kind, array, end in (("images", piece, "_0000"), ("labels", bright, "")):
            place = folder / f"{kind}{'Tr' if number < 5 else 'Ts'}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(place / f"cup_{number}{end}.png")
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "bright": 1}, "numTraining": 5,
        "file_ending": ".png",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_from_pictures_to_label_pictures(data, tmp_path, capsys):
    work = tmp_path / "work"
    planned = plan_dataset(data, work, preset="fast", pictures=1)
    assert planned.problems == [] and planned.others == {}
    plan = planned.plan
    assert (plan.configuration, plan.channels, plan.spacing) == ("2d", ["R", "G", "B"], (999, 1, 1))
    assert plan.patch_size[0] == 1 and plan.network["in_channels"] == 3
    assert np.load(work / "preprocessed" / "cup_0" / "label.npy").shape == (1, 96, 90)  # pixels stay as they are
    with unformatted():
        train(work / "config.py", TrainOptions(cfg_options={"epochs": 1, "iterations": 3}))
    outcome = evaluate_volumes(
        load_config(work / "config.py"), work / "epoch_1.pth", tta="none", device="cpu", masks=tmp_path / "masks"
    )
    (score,) = outcome.scores
    assert score.case == "cup_5" and 0 < score.dice <= 1 and score.hd95_mm < 96

    spec = importlib.util.spec_from_file_location("segment_tool", project_folder("tools") / "segment.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tmp_path / "out"
    checkpoint = str(work / "epoch_1.pth")
    arguments = [str(work), str(data / "imagesTs"), "--checkpoint", checkpoint, "--tta", "none", "--device", "cpu"]
    assert tool.main([*arguments, "--out", str(out)]) == 0
    assert "pixels" in capsys.readouterr().out
    found = np.array(Image.open(out / "cup_5.png"))
    assert found.shape == (96, 85) and found.dtype == np.uint8 and set(np.unique(found)) <= {0, 1}
    np.testing.assert_array_equal(found, np.array(Image.open(tmp_path / "masks" / "cup_5.png")))
    true = np.array(Image.open(data / "labelsTs" / "cup_5.png"))
    assert score.dice == pytest.approx(2 * (found & true).sum() / (found.sum() + true.sum()))  # rows are rows
    assert (out / "cup_5_preview.png").is_file()
    assert tool.main([*arguments, "--out", str(out), "--format", "dicom-seg"]) == 2


def test_what_is_wrong_with_pictures(data, tmp_path):
    images, labels = data / "imagesTr", data / "labelsTr"
    Image.open(images / "cup_0_0000.png").convert("L").save(images / "cup_0_0000.png")
    Image.open(images / "cup_1_0000.png").convert("P").save(images / "cup_1_0000.png")
    Image.fromarray(np.array(Image.open(labels / "cup_2.png")) * 255).save(labels / "cup_2.png")
    Image.open(labels / "cup_3.png").rotate(90, expand=True).save(labels / "cup_3.png")
    with pytest.raises(DatasetError) as caught:
        plan_dataset(data, tmp_path / "work", dry_run=True)
    found = {one.case: one.found for one in caught.value.problems}
    assert found["cup_0"] == "1 channel in the picture" and found["cup_1"] == "colours by a palette"
    assert found["cup_2"] == "label value 255" and found["cup_3"].startswith("shape 96 x 87")
