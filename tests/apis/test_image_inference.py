"""Classifying and segmenting pictures from Python: models by name and by configuration, files, arrays, damage."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mamba_vision
from mamba_vision.apis.classification import ImageClassifierInferencer
from mamba_vision.apis.image_model import build_from_config, config_of, init_image_model, shipped_configs
from mamba_vision.apis.image_segmentation import ImageSegmentationInferencer
from mamba_vision.apis.model_names import find_variant
from mamba_vision.checkpoints import CheckpointError
from mamba_vision.utils import project_folder
from mamba_vision.utils.image_files import find_images, picture_names, read_image

CONFIGS = project_folder("configs")


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder: colour of several sizes, grey, one with transparency, damaged ones, and what is no picture."""
    folder, random = tmp_path / "images", np.random.RandomState(0)
    (folder / "more").mkdir(parents=True)
    for name, shape in {
        "a.png": (40, 60, 3), "b.jpg": (301, 200, 3), "grey.png": (50, 70), "alpha.png": (33, 47, 4),
        "more/a.png": (40, 60, 3),
    }.items():  # fmt: skip
        Image.fromarray(random.randint(0, 255, shape, dtype=np.uint8)).save(folder / name)
    whole = (folder / "b.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad.png").write_bytes(b"\x89PNG no")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """Weights of vim_test with five named classes."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "vim.pth"
    model = mamba_vision.get_model("vim_test", num_classes=5)
    torch.save({"meta": {"dataset_meta": {"classes": list("abcde")}}, "state_dict": model.state_dict()}, file)
    return file


# ---- files ---------------------------------------------------------------------------------------------------------
def test_finding(images):
    names = [file.name for file in find_images([images])]
    assert names == ["a.png", "alpha.png", "b.jpg", "bad.png", "cut.jpg", "grey.png"]
    assert len(find_images([images, images / "a.png"], recursive=True)) == 7
    with pytest.raises(FileNotFoundError, match="none: no such image"):
        find_images([images / "none"])
    (images / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image in this folder, expected \.png"):
        find_images([images / "empty"])


def test_reading(images):
    assert read_image(images / "a.png").shape == read_image(images / "a.png", 3).shape == (40, 60, 3)
    assert read_image(images / "a.png", 1).shape == (40, 60, 1)
    assert read_image(images / "grey.png").shape == (50, 70, 3) and read_image(images / "alpha.png").shape[2] == 3
    blue = np.zeros((4, 4, 3), np.uint8)
    blue[..., 2] = 255
    Image.fromarray(blue).save(images / "blue.png")
    assert read_image(images / "blue.png")[0, 0].tolist() == [255, 0, 0]  # BGR
    np.save(images / "six.npy", np.zeros((9, 8, 6), np.float32))
    assert read_image(images / "six.npy", 6).shape == (9, 8, 6)
    for name, message in (
        ("cut.jpg", "cut.jpg: damaged.*truncated"),
        ("bad.png", "bad.png: damaged"),
        ("six.npy", "six.npy: 6 channels, expected 3"),
    ):
        with pytest.raises(ValueError, match=message):
            read_image(images / name)
    with pytest.raises(ValueError, match="array: shape"):
        read_image(np.zeros(3))


def test_names_of_pictures():
    names = picture_names([Path("x/a.png"), Path("y/a.jpg"), Path("y/A.bmp")], ".png")
    assert list(names.values()) == ["a.png", "a_2.png", "A_3.png"]


# ---- classification ------------------------------------------------------------------------------------------------
def test_classify(images, classifier, tmp_path):
    inferencer = ImageClassifierInferencer("vim_test", classifier, "cpu")
    files = find_images([images])
    results = list(inferencer.classify(files, batch_size=2, topk=2, draw=lambda image: tmp_path / "drawn" / "x.png"))
    assert [Path(result.image).name for result in results] == [file.name for file in files]
    failed = {Path(result.image).name for result in results if result.error}
    assert failed == {"bad.png", "cut.jpg"}
    for result in results:
        if not result.error:
            assert len(result.labels) == 2 and set(result.labels) < set("abcde")
            assert 1 > result.scores[0] >= result.scores[1] > 0
    assert Image.open(tmp_path / "drawn" / "x.png").size[0] >= 224
    # the same as MMPretrain's own call, whatever the batch
    own = inferencer(str(images / "a.png"))[0]
    assert own["pred_class"] == results[0].labels[0] and abs(own["pred_score"] - results[0].scores[0]) < 1e-5
    (thin,) = inferencer.classify([np.zeros((1, 10000, 3), np.uint8)])  # would be enlarged to 256 x 2,560,000
    assert thin.error == "0: 10000 x 1 pixels, expected sides of at most 100:1; cut it into pieces"
    (array,) = inferencer.classify([read_image(images / "a.png")])
    assert array.image == "0" and array.labels[:2] == results[0].labels and len(array.labels) == 5


def test_a_name_brings_the_shipped_configuration(tmp_path):
    assert {cfg.model.backbone.arch for cfg in shipped_configs(find_variant("vmamba_tiny"))} == {"tiny_s1l8"}
    scenes = config_of(find_variant("rsmamba_base"), 30)
    assert scenes.data_preprocessor.mean[0] == pytest.approx(101.026, abs=1e-3)
    assert config_of(find_variant("vim_tiny"), 1000).test_dataloader.dataset.type == "ImageNet"
    other = config_of(find_variant("vmamba_test"), 7)
    assert other.model.head == dict(type="LinearClsHead", num_classes=7, in_channels=128)
    with torch.device("meta"):
        assert build_from_config(other).head.num_classes == 7
    with pytest.raises(ValueError, match="umamba_bot: is no backbone"):
        config_of(find_variant("umamba_bot"), 3)


def test_classes_of_the_configured_data_set(tmp_path):
    cfg = Config.fromfile(CONFIGS / "rsmamba" / "rsmamba-base_uc.py")
    cfg.model.backbone.arch, cfg.model.head.in_channels = "test", 32
    torch.save(build_from_config(cfg).state_dict(), tmp_path / "bare.pth")
    model = init_image_model(cfg, tmp_path / "bare.pth", "cpu")
    assert model.dataset_meta["classes"][:2] == ("harbor", "parkinglot")


def test_grey_digits(tmp_path):
    """A data set of arrays has a pipeline for files of its own."""
    config = CONFIGS / "localmamba" / "local-vim_digits.py"
    torch.save(build_from_config(Config.fromfile(config)).state_dict(), tmp_path / "digits.pth")
    inferencer = ImageClassifierInferencer(config, tmp_path / "digits.pth", "cpu")
    assert inferencer.channels == 1
    Image.fromarray(np.zeros((77, 50, 3), np.uint8)).save(tmp_path / "digit.png")
    (result,) = inferencer.classify([tmp_path / "digit.png"], topk=1)
    assert result.labels[0] in "0123456789" and result.error is None


def test_what_does_not_fit(classifier, tmp_path):
    with pytest.raises(CheckpointError, match=r"vim\.pth: .*does not fit"):
        ImageClassifierInferencer("vmamba_test", classifier, "cpu")
    with pytest.raises(ValueError, match="'vim_tset' is not known"):
        ImageClassifierInferencer("vim_tset", classifier, "cpu")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        ImageClassifierInferencer("vim_test", tmp_path / "none.pth", "cpu")


# ---- segmentation --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def segmentor(tmp_path_factory) -> tuple[Config, Path]:
    """A small EncoderDecoder of VMamba with the ADE20K configuration, and weights."""
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / "vmamba" / "vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py")
    cfg.model.backbone.arch = "test"
    cfg.model.decode_head.update(in_channels=[16, 32, 64, 128], channels=8)
    cfg.model.auxiliary_head.update(in_channels=64, channels=8)
    cfg.test_dataloader.dataset.pipeline[1].scale = (256, 64)
    file = tmp_path_factory.mktemp("weights") / "segmentor.pth"
    torch.save({"state_dict": build_from_config(cfg).state_dict()}, file)
    return cfg, file


def test_segment(images, segmentor):
    inferencer = ImageSegmentationInferencer(*segmentor, "cpu")
    files = find_images([images])
    results = list(inferencer.segment(files, overlay=True))
    assert {Path(result.image).name for result in results if result.error} == {"bad.png", "cut.jpg"}
    for file, result in zip(files, results):
        if not result.error:
            size = Image.open(file).size
            assert result.mask.shape == size[::-1] and result.mask.dtype == np.uint8
            assert result.overlay.shape == (*result.mask.shape, 3)
            assert sum(result.shares.values()) == pytest.approx(1) and set(result.shares) <= set(inferencer.classes)
    one, thin = inferencer.segment([np.zeros((1, 1, 3), np.uint8), np.zeros((1, 999, 3), np.uint8)], overlay=True)
    palette = inferencer._ready.dataset_meta["palette"]
    assert one.overlay[0, 0].tolist() == [value // 2 for value in palette[one.mask.item()]] and "100:1" in thin.error
    # MMSegmentation's own call gives the same mask
    own = inferencer(str(images / "a.png"))["predictions"]
    np.testing.assert_array_equal(own, results[0].mask)


def test_mmseg_inferencer_itself_takes_our_backbones(segmentor):
    from mmseg.apis import MMSegInferencer

    cfg, _ = segmentor
    cfg = cfg.copy()
    cfg.model.backbone.pop("init_cfg", None)
    inferencer = MMSegInferencer(cfg, device="cpu", show_progress=False)
    assert inferencer(np.zeros((40, 60, 3), np.uint8))["predictions"].shape == (40, 60)


def test_a_classifier_is_no_segmentor(classifier, segmentor):
    with pytest.raises(ValueError, match="expected a semantic segmentor, found ImageClassifier"):
        ImageSegmentationInferencer("vim_test", classifier, "cpu")
    with pytest.raises(ValueError, match="expected an image classifier, found EncoderDecoder"):
        ImageClassifierInferencer(*segmentor, "cpu")
