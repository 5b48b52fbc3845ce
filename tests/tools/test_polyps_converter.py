"""tools/dataset_converters/polyps.py on small pictures in the layouts of the six downloads."""

import runpy

import numpy as np
import pytest
from PIL import Image

from mamba_vision.datasets.polyps import PolypDataset
from mamba_vision.utils.paths import project_folder

LAYOUTS = {  # images, masks, names of both
    "kvasir-seg": ("images", "masks", "cju{}.jpg", "cju{}.jpg"),
    "cvc-clinicdb": ("Original", "Ground Truth", "{}.tif", "{}.tif"),
    "cvc-300": ("bbdd", "gtpolyp", "{}.bmp", "{}.bmp"),
    "cvc-colondb": ("images", "masks", "{}.png", "{}.png"),
    "etis": ("ETIS-LaribPolypDB", "GroundTruth", "{}.tif", "p{}.tif"),
    "bkai": ("train/train", "train_gt/train_gt", "{}.jpeg", "{}.jpeg"),
}
TESTS = {"kvasir-seg": "Kvasir", "cvc-clinicdb": "CVC-ClinicDB", "cvc-300": "CVC-300", "cvc-colondb": "CVC-ColonDB",
         "etis": "ETIS-LaribPolypDB", "bkai": "BKAI"}  # fmt: skip


def call(*arguments) -> int:
    tool = project_folder("tools") / "dataset_converters" / "polyps.py"
    return runpy.run_path(str(tool))["main"]([str(argument) for argument in arguments])


def download(root, name: str, count: int = 6):
    """A download of this data set: every mask is a square, in colour where kinds of polyps are told apart."""
    images, masks, image_name, mask_name = LAYOUTS[name]
    for folder in (images, masks):
        (root / folder).mkdir(parents=True)
    for number in range(1, count + 1):
        mask = np.zeros((32, 40, 3), np.uint8)
        mask[8:24, 8:16, number % 2 if name == "bkai" else slice(None)] = 255
        picture = np.random.randint(0, 255, mask.shape, dtype=np.uint8)
        Image.fromarray(picture).save(root / images / image_name.format(number))
        Image.fromarray(mask).save(root / masks / mask_name.format(number))
    return root


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_download_becomes_the_shared_layout(name, tmp_path, capsys):
    assert call(name, download(tmp_path / "download", name), tmp_path / "out") == 0
    shown = capsys.readouterr().out
    split = name in ("kvasir-seg", "cvc-clinicdb")
    assert ("results compare with no paper's" in shown) == split
    tests = PolypDataset(tmp_path / "out", "test")
    assert len(tests) == (3 if split else 6) and {tests.get_data_info(i)["dataset"] for i in range(3)} == {TESTS[name]}
    if split:
        train = PolypDataset(tmp_path / "out")
        names = {part.get_data_info(i)["name"].rpartition("_")[2] for part in (train, tests) for i in range(3)}
        assert len(train) == 3 and len(names) == 6
    entry = tests.get_data_info(0)
    mask = np.array(Image.open(entry["mask_path"]))
    assert set(np.unique(mask)) == {0, 255} and (mask > 0).sum() == pytest.approx(16 * 8, abs=20)  # JPEG blurs
    assert np.array(Image.open(entry["path"])).shape == (32, 40, 3)


def test_a_list_of_test_images_and_both_sources_in_one_folder(tmp_path):
    (tmp_path / "test.txt").write_text("cju2.jpg\ncju5\n")
    kvasir = download(tmp_path / "kvasir", "kvasir-seg")
    assert call("kvasir-seg", kvasir, tmp_path / "out", "--test", tmp_path / "test.txt") == 0
    assert call("cvc-clinicdb", download(tmp_path / "clinic", "cvc-clinicdb"), tmp_path / "out") == 0
    found = sorted(file.stem for file in (tmp_path / "out/TestDataset/Kvasir/images").iterdir())
    assert found == ["cju2", "cju5"]
    assert len(PolypDataset(tmp_path / "out")) == 4 + 3
    # A second run finds everything there and writes nothing anew.
    file = tmp_path / "out/TestDataset/Kvasir/masks/cju2.png"
    before = file.stat().st_mtime_ns
    assert call("kvasir-seg", kvasir, tmp_path / "out", "--test", tmp_path / "test.txt") == 0
    assert file.stat().st_mtime_ns == before


def test_the_ready_made_split_is_checked_and_copied(tmp_path, capsys):
    for part, images, masks in (("TrainDataset", "image", "mask"), ("TestDataset/CVC-300", "images", "masks")):
        for folder in (images, masks):
            (tmp_path / "in" / part / folder).mkdir(parents=True)
            Image.fromarray(np.full((16, 16), 200, np.uint8)).save(tmp_path / "in" / part / folder / "1.png")
    assert call("pranet", tmp_path / "in", tmp_path / "out") == 0
    assert "TestDataset/CVC-300: 1 pictures" in capsys.readouterr().out
    assert len(PolypDataset(tmp_path / "out")) == len(PolypDataset(tmp_path / "out", "test")) == 1


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("etis", lambda f: (f / "GroundTruth" / "p2.tif").unlink(), "no masks of 2.tif"),
        ("kvasir-seg", lambda f: (f / "masks" / "cju2.jpg").write_bytes(b"no"), "cju2.jpg"),
        ("kvasir-seg", lambda f: (f / "masks").rename(f / "labels"), "expected folders images/ with masks/"),
        ("cvc-300", lambda f: Image.new("L", (5, 5)).save(f / "gtpolyp" / "3.bmp"), "3.bmp: image 40 x 32, mask 5 x 5"),
        ("etis", lambda f: Image.new("L", (5, 5)).save(f / "GroundTruth" / "p3.tif"), "found 5 x 5 pixels"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, capsys, name, spoil, message):
    source = download(tmp_path / "download", name)
    spoil(source)
    assert call(name, source, tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_other_complaints(tmp_path, capsys):
    source = download(tmp_path / "download", "kvasir-seg")
    (tmp_path / "test.txt").write_text("cju99\n")
    assert call("kvasir-seg", source, tmp_path / "out", "--test", tmp_path / "test.txt") == 2
    assert "found cju99, of which there are no images" in capsys.readouterr().err
    assert call("pranet", tmp_path / "nowhere", tmp_path / "out") == 2
    assert "found none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("etis", source, tmp_path / "out", "--test", tmp_path / "test.txt")
