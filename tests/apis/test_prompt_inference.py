"""Prompts from Python: three lines from a picture to its mask."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mamba_vision.apis import init_prompt_model, segment_with_prompts
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.image_model import build_from_config
from mamba_vision.apis.prompt_inference import PromptPredictor, PromptResult
from mamba_vision.apis.prompt_run import PromptOptions, collect_prompts, segment_pictures
from mamba_vision.checkpoints import CheckpointError
from mamba_vision.visualization.prompt_overlay import MASK, draw_prompts


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """Configuration and weights of a small model, as training leaves them."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "small.py").write_text(
        "default_scope = 'mamba_vision'\n"
        "model = dict(type='PromptSegmentor', network=dict(type='ProMamba', arch='test'))\n"
        "test_dataloader = dict(dataset=dict(type='PolypDataset', pipeline=[\n"
        "    dict(type='LoadPromptImage'), dict(type='ResizePrompted', size=64)]))\n"
    )
    torch.manual_seed(0)
    torch.save(build_from_config(load_config(folder / "small.py")).state_dict(), folder / "epoch_1.pth")
    return folder


@pytest.fixture
def model(work_dir):
    return init_prompt_model(work_dir, device="cpu")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.randint(0, 255, (50, 80, 3), dtype=np.uint8)).save(path)
    return path


def test_three_lines(work_dir, picture, tmp_path):
    model = init_prompt_model(work_dir / "small.py", work_dir / "epoch_1.pth", device="cpu")
    result = segment_with_prompts(model, picture, boxes=[[10, 5, 60, 40]], points=[[20, 20, 1], [70, 45, 0]])
    result.save(tmp_path / "mask.png")
    stored = np.array(Image.open(tmp_path / "mask.png"))
    assert stored.shape == (50, 80) and np.array_equal(stored == 255, result.mask)
    assert result.probability.dtype == np.float32 and np.array_equal(result.mask, result.probability >= 0.5)
    assert result.overlay().shape == (50, 80, 3)


def test_prompts_reach_the_network_in_its_own_pixels(model, picture):
    seen = {}
    model.network.decode = lambda features, **given: seen.update(given) or torch.zeros(1, 1, 64, 64)
    PromptPredictor(model).set_image(picture).predict([[8, 5, 40, 25]], [[79, 49, 0]])
    torch.testing.assert_close(seen["boxes"][0, 0], torch.tensor([6.4, 6.4, 32.0, 32.0]))
    torch.testing.assert_close(seen["points"][0, 0], torch.tensor([79.5 * 0.8 - 0.5, 49.5 * 1.28 - 0.5]))
    assert seen["labels"].tolist() == [[0]] and seen["size"] == (64, 64)


def test_features_are_computed_once_and_half_precision_is_close(model, picture):
    predictor = PromptPredictor(model).set_image(picture)
    model.network.encode = None
    again = predictor.predict([[10, 5, 60, 40]])
    del model.network.encode
    torch.testing.assert_close(again.probability, segment_with_prompts(model, picture, [[10, 5, 60, 40]]).probability)
    half = segment_with_prompts(model, picture, [[10, 5, 60, 40]], amp=True)
    assert np.abs(half.probability - again.probability).max() < 0.05


def test_statistics():
    mask = np.zeros((10, 20), bool)
    mask[2:4, 3:7] = mask[8, 15] = True
    result = PromptResult(np.zeros((10, 20, 3), np.uint8), mask, np.where(mask, 0.75, 0.1).astype(np.float32))
    found = result.statistics()
    assert found == {"pixels": 9, "share": 0.045, "pieces": 2, "box": [3, 2, 16, 9], "centroid": [5.67, 3.11],
                     "mean_probability": 0.75}  # fmt: skip
    empty = PromptResult(result.image, np.zeros_like(mask), result.probability).statistics()
    assert empty["pixels"] == empty["pieces"] == 0 and empty["box"] is empty["mean_probability"] is None


def test_drawing():
    image, mask = np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    out = draw_prompts(image, mask, [[10, 10, 50, 50]], [[30, 30, 1], [5, 5, 0]], corner=(55, 5))
    assert tuple(out[20, 30]) == MASK and tuple(out[25, 25]) == tuple(np.rint(0.45 * np.array(MASK)).astype(int))
    assert tuple(out[10, 30]) == (0, 220, 255) and tuple(out[30, 30]) == (40, 230, 80)
    assert tuple(out[5, 5]) == (255, 60, 60) and tuple(out[5, 55]) == (0, 220, 255)
    assert not image.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(boxes=[[60, 5, 10, 40]]), "found box 60,5,10,40, expected x1 < x2"),
        (dict(boxes=[[100, 5, 110, 40]]), "lies outside the picture of 80 x 50"),
        (dict(points=[[1, 2]]), "expected rows of 3 numbers"),
        (dict(points=[[1, 60, 1]]), "point 1,60 lies outside"),
    ],
)
def test_prompts_are_checked(model, picture, call, message):
    with pytest.raises(ValueError, match=message):
        segment_with_prompts(model, picture, **call)


def test_pictures_are_checked(model, tmp_path):
    with pytest.raises(ValueError, match="expected uint8"):
        segment_with_prompts(model, np.zeros((4, 4)))
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(ValueError, match=r"text\.png: expected an image"):
        segment_with_prompts(model, tmp_path / "text.png")
    with pytest.raises(ValueError, match="none was set"):
        PromptPredictor(model).predict()


def test_models_are_checked(work_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such configuration"):
        init_prompt_model(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="found none"):
        init_prompt_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="needs a file of weights"):
        init_prompt_model(work_dir / "small.py")
    other = tmp_path / "other.py"
    other.write_text("model = dict(type='VolumeSegmentor')")
    with pytest.raises(ValueError, match="expected a PromptSegmentor, found VolumeSegmentor"):
        init_prompt_model(other, work_dir / "epoch_1.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match="does not fit PromptSegmentor"):
        init_prompt_model(work_dir, tmp_path / "wrong.pth")


def test_a_run_goes_on_after_a_damaged_picture_and_resumes(model, picture, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    Image.open(picture).save(tmp_path / "a.png")
    pictures = collect_prompts([tmp_path])
    lines = []
    failed = segment_pictures(model, pictures, tmp_path / "out", PromptOptions(probabilities=True), lines.append)
    assert [path.name for path in failed] == ["broken.png"]
    for folder in ("masks", "overlays", "probabilities"):
        assert sorted(file.name for file in (tmp_path / "out" / folder).iterdir()) == ["a.png", "picture.png"]
    table = (tmp_path / "out" / "statistics.csv").read_text().splitlines()
    assert len(table) == 4 and table[0].startswith("image,boxes,points,pixels")
    (tmp_path / "out" / "masks" / "a.png").unlink()
    again = []
    segment_pictures(model, pictures, tmp_path / "out", PromptOptions(resume=True), again.append)
    assert sum("is there" in line for line in again) == 1
    assert len((tmp_path / "out" / "statistics.csv").read_text().splitlines()) == 4


def test_an_interrupted_run_keeps_its_table_and_other_pictures_keep_their_rows(model, picture, tmp_path):
    Image.open(picture).save(tmp_path / "second.png")
    pictures, out = collect_prompts([picture, tmp_path / "second.png"]), tmp_path / "out"

    def stop_after_the_first(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_pictures(model, pictures, out, PromptOptions(), stop_after_the_first)
    assert [row["image"] for row in json.loads((out / "statistics.json").read_text())] == [str(picture)]
    again = []
    segment_pictures(model, pictures, out, PromptOptions(resume=True), again.append)
    assert "is there" in again[0] and "is there" not in again[1]
    (out / "statistics.json").unlink()  # as a killed process leaves it: masks without rows are made again
    segment_pictures(model, pictures, out, PromptOptions(resume=True), again.append)
    segment_pictures(model, collect_prompts([picture]), out, PromptOptions(), again.append)
    assert [row["pixels"] >= 0 for row in json.loads((out / "statistics.json").read_text())] == [True, True]


def test_prompts_of_many(picture, tmp_path):
    Image.open(picture).save(tmp_path / "other.png")
    file = tmp_path / "prompts.json"
    file.write_text('{"other.png": {"boxes": [[1, 2, 30, 40]]}}')
    found = collect_prompts([tmp_path], file=file)
    assert [len(prompts.boxes) for prompts in found.values()] == [1, 0]
    with pytest.raises(ValueError, match="found 2 pictures, expected one"):
        collect_prompts([tmp_path], boxes=[[1, 2, 3, 4]])
    with pytest.raises(ValueError, match="not both"):
        collect_prompts([picture], boxes=[[1, 2, 3, 4]], file=file)
    file.write_text('{"elsewhere.png": {}}')
    with pytest.raises(ValueError, match=r"found prompts for elsewhere.png, of which there is no picture"):
        collect_prompts([tmp_path], file=file)


def test_weights_that_training_began_with_need_not_be_there(work_dir, tmp_path):
    start = "encoder=dict(init_cfg=dict(type='Pretrained', checkpoint='gone.pth'))"
    text = (work_dir / "small.py").read_text().replace("arch='test'", f"arch='test', {start}")
    (tmp_path / "small.py").write_text(text)
    assert init_prompt_model(tmp_path / "small.py", work_dir / "epoch_1.pth", device="cpu").resize is not None
