"""The polyp data sets' shared layout, on small pictures in it."""

import json

import numpy as np
import pytest
from PIL import Image

from mamba_vision.datasets.polyps import PolypDataset
from mamba_vision.datasets.prompt_images import check_inside, parse_prompts, read_mask, read_prompts, read_rgb
from mamba_vision.registry import DATASETS

PIPELINE = [
    dict(type="mamba_vision.LoadPromptImage"),
    dict(type="mamba_vision.ResizePrompted", size=64),
    dict(type="mamba_vision.SimulatePrompts"),
    dict(type="mamba_vision.PackPrompted", original_mask=True),
]


def picture(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def polyp(size=(48, 40)) -> tuple[np.ndarray, np.ndarray]:
    """A picture and a mask 0 or 255 with one square in it."""
    mask = np.zeros(size, np.uint8)
    mask[8:30, 10:25] = 255
    return np.random.randint(0, 255, (*size, 3), dtype=np.uint8), mask


@pytest.fixture
def root(tmp_path):
    for folder, names in (
        ("TrainDataset", ("image", "mask")), ("TestDataset/Kvasir", ("images", "masks")),
        ("TestDataset/CVC-300", ("images", "masks")),
    ):  # fmt: skip
        for number in range(3):
            for name, array in zip(names, polyp()):
                picture(tmp_path / folder / name / f"{number}.png", array)
    return tmp_path


def test_training_part(root):
    data = DATASETS.build(dict(type="mamba_vision.PolypDataset", data_root=str(root), pipeline=PIPELINE))
    assert len(data) == 3
    packed = data[0]
    sample = packed["data_samples"]
    assert packed["inputs"].shape == (3, 64, 64) and sample.dataset == "TrainDataset" and sample.name == "0"
    assert sample.ori_shape == (48, 40) and sample.gt_mask.shape == (48, 40) and sample.gt_mask.sum() == 22 * 15


def test_all_tests_that_are_there_in_every_mode(root):
    modes = ["none", "gt_box", "point"]
    data = PolypDataset(str(root), "test", modes, pipeline=[])
    found = [(entry["dataset"], entry["prompt_mode"]) for entry in map(data.get_data_info, range(len(data)))]
    assert found == [(name, mode) for name in ("Kvasir", "CVC-300") for _ in range(3) for mode in modes]


def test_prompts_by_mode(root):
    data = DATASETS.build(
        dict(type="mamba_vision.PolypDataset", data_root=str(root), parts="TestDataset/Kvasir", pipeline=PIPELINE,
             prompt_modes=["none", "gt_box", "gt_box_jitter", "point"])
    )  # fmt: skip
    none, box, jittered, point = (data[number]["data_samples"] for number in range(4))
    assert len(none.boxes) == len(none.points) == 0
    # 8:30 of 48 rows and 10:25 of 40 columns at 64 x 64, to a pixel of the nearest neighbours.
    assert np.allclose(box.boxes.numpy(), [[16, 10.67, 40, 40]], atol=1)
    assert not np.allclose(box.boxes, jittered.boxes) and np.allclose(box.boxes, jittered.boxes, atol=3)
    assert np.array_equal(data[2]["data_samples"].boxes, jittered.boxes)  # the same in every run
    assert np.allclose(point.points, [[27.5, 25]], atol=1) and point.labels.tolist() == [1]


def test_detector_boxes_come_from_a_file(root):
    file = root / "boxes.json"
    file.write_text(json.dumps({"Kvasir/1.png": {"boxes": [[4, 6, 20, 24]]}, "2.png": {"points": [[10, 12, 1]]}}))
    pipeline = [*PIPELINE[:2], dict(type="mamba_vision.SimulatePrompts", file=str(file)), PIPELINE[3]]
    data = DATASETS.build(
        dict(type="mamba_vision.PolypDataset", data_root=str(root), parts="TestDataset/Kvasir",
             prompt_modes=["detector"], pipeline=pipeline)
    )  # fmt: skip
    nothing, box, point = (data[number]["data_samples"] for number in range(3))
    assert len(nothing.boxes) == 0 and np.allclose(box.boxes, [[6.4, 8, 32, 32]])
    assert np.allclose(point.points, [[10.5 * 1.6 - 0.5, 12.5 * 64 / 48 - 0.5]])


def test_colors_of_kinds_of_polyps_are_one_and_gray_pictures_are_read(tmp_path):
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[0, 0], mask[1, 1], mask[2, 2] = (255, 0, 0), (0, 200, 0), (90, 90, 90)
    picture(tmp_path / "mask.png", mask)
    assert read_mask(tmp_path / "mask.png").nonzero()[0].tolist() == [0, 1]
    picture(tmp_path / "gray.png", np.full((3, 5), 7, np.uint8))
    assert read_rgb(tmp_path / "gray.png").tolist() == np.full((3, 5, 3), 7).tolist()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "mask" / "1.png").unlink(), "no masks of 1.png"),
        (lambda f: (f / "image" / "2.png").unlink(), "no images for 2.png"),
        (lambda f: picture(f / "mask" / "0.png", polyp((20, 40))[1]), "0.png: image 40 x 48, mask 40 x 20"),
        (lambda f: (f / "image" / "1.png").write_bytes(b"no"), "1.png: expected an image"),
        (lambda f: picture(f / "image" / "1.bmp", polyp()[0]), "found 1.bmp and 1.png, expected one of a name"),
        (lambda f: [file.unlink() for file in (f / "image").iterdir()], "no images in it"),
        (lambda f: (f / "mask").rename(f / "truth"), "expected a folder mask or masks"),
    ],
)
def test_what_is_wrong_is_named(root, spoil, message):
    spoil(root / "TrainDataset")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        PolypDataset(str(root))


def test_settings_are_checked(root):
    with pytest.raises(ValueError, match="prompt_modes: found gt, expected some of none, gt_box"):
        PolypDataset(str(root), prompt_modes=["gt"])
    with pytest.raises(FileNotFoundError, match="Elsewhere: no such folder"):
        PolypDataset(str(root), "Elsewhere")
    with pytest.raises(FileNotFoundError, match="expected some of TestDataset/Kvasir"):
        PolypDataset(str(root / "TrainDataset"), "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected an object of picture names, found list"),
        ("{", "expected JSON"),
        ('{"a.png": [1]}', "a.png: expected an object of boxes and points"),
        ('{"a.png": {"box": []}}', "a.png: expected an object of boxes and points, found box"),
        ('{"a.png": {"boxes": [[1, 2, 3]]}}', "a.png: boxes: found .* rows of 4 numbers"),
        ('{"a.png": {"boxes": [[5, 2, 3, 9]]}}', "found box 5,2,3,9, expected x1 < x2"),
        ('{"a.png": {"points": [[5, 2, 3]]}}', "found label 3 of point 5,2"),
    ],
)
def test_files_of_prompts_are_checked(tmp_path, text, message):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prompts(tmp_path / "p.json")


def test_prompts_outside_are_named():
    with pytest.raises(ValueError, match="a: box 50,0,60,9 lies outside the picture of 40 x 30"):
        check_inside(parse_prompts({"boxes": [[50, 0, 60, 9]]}, "a"), (30, 40), "a")
    with pytest.raises(ValueError, match="a: point 3,30 lies outside"):
        check_inside(parse_prompts({"points": [[3, 30, 1]]}, "a"), (30, 40), "a")
