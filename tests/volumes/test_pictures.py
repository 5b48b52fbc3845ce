"""PNG, BMP and TIFF as volumes: what is read, what is refused, and label pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from mamba_vision.volumes.pictures import write_picture_labels
from mamba_vision.volumes.reading import read_label, read_volume
from mamba_vision.volumes.scan_files import channel_count
from mamba_vision.volumes.scans import find_labels, find_scans
from mamba_vision.volumes.volume import VolumeError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (20, 30), np.uint8)  # rows, columns
RGB = RNG.integers(0, 255, (20, 30, 3), np.uint8)


def _save(path, array, **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_colours_are_channels(tmp_path, ending):
    grey, rgb = read_volume(_save(tmp_path / f"g.{ending}", GREY)), read_volume(_save(tmp_path / f"c.{ending}", RGB))
    np.testing.assert_array_equal(grey.array[0, :, :, 0], GREY.T)
    np.testing.assert_array_equal(rgb.array[..., 0], RGB.transpose(2, 1, 0))
    assert grey.spacing == rgb.spacing == (1, 1, 999) and grey.array.dtype == np.float32
    both = read_volume([tmp_path / f"c.{ending}", tmp_path / f"g.{ending}"])
    assert both.array.shape == (4, 30, 20, 1)


def test_deep_and_real_pixels(tmp_path):
    for name, array in (("a.png", GREY.astype(np.uint16) * 200), ("b.tif", GREY.astype(np.float32) / 7)):
        np.testing.assert_array_equal(read_volume(_save(tmp_path / name, array)).array[0, :, :, 0], array.T)


def test_pages_are_slices(tmp_path):
    pages = [Image.fromarray(GREY + number) for number in range(3)]
    for name in ("case_0000.tif", "label.tif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    assert read_volume(tmp_path / "case_0000.tif").spacing == (1, 1, 1)
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [3, 0.5, 0.25]}))
    volume = read_volume(tmp_path / "case_0000.tif")
    assert volume.shape == (30, 20, 3) and volume.spacing == (0.25, 0.5, 3)
    label = read_label(tmp_path / "label.tif", volume)  # its own file says nothing
    np.testing.assert_array_equal(label.array, volume.array)
    write_picture_labels(tmp_path / "out.tif", label.array[0], volume)
    again = read_volume(tmp_path / "out.tif")
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.spacing == volume.spacing
    with pytest.raises(VolumeError, match="3 slices; expected a TIFF"):
        write_picture_labels(tmp_path / "out.png", label.array[0], volume)
    (tmp_path / "case.json").write_text('{"spacing": [3, 0.5]}')
    with pytest.raises(VolumeError, match="no spacing"):
        read_volume(tmp_path / "case_0000.tif")


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_labels_there_and_back(tmp_path, ending):
    scan = read_volume(_save(tmp_path / "scan.png", RGB))
    labels = (GREY.T // 80).astype(np.int16)[..., None]
    path = write_picture_labels(tmp_path / f"out.{ending}", labels, scan)
    assert Image.open(path).size == (30, 20) and Image.open(path).mode == "L"
    np.testing.assert_array_equal(read_label(path, scan).array[0], labels)
    if ending != "bmp":
        deep = write_picture_labels(tmp_path / f"deep.{ending}", labels * 300, scan)
        np.testing.assert_array_equal(read_label(deep, scan).array[0], labels * 300)


def test_what_is_refused_and_what_is_taken(tmp_path):
    palette = Image.fromarray(GREY % 3).convert("P")
    palette.putdata((GREY % 3).ravel().tolist())
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_label(tmp_path / "palette.png").array[0, :, :, 0], (GREY % 3).T)
    opaque = np.dstack([RGB, np.full_like(GREY, 255)])
    assert channel_count(find_scans(_save(tmp_path / "opaque.png", opaque))[0]) == 3
    assert read_volume(tmp_path / "opaque.png").array.shape[0] == 3
    (tmp_path / "cut.png").write_bytes((tmp_path / "opaque.png").read_bytes()[:400])
    (tmp_path / "text.png").write_text("hello")
    _save(tmp_path / "clear.png", np.dstack([RGB, GREY]))
    for name, match in (
        ("palette.png", "a palette; expected a grey or RGB"), ("clear.png", "transparent"), ("cut.png", "truncated"),
        ("text.png", "is no picture"), ("none.png", "no such file"),
    ):  # fmt: skip
        with pytest.raises(VolumeError, match=match):
            read_volume(tmp_path / name)
    with pytest.raises(VolumeError, match=r"colours \(RGB\); expected class numbers"):
        read_label(_save(tmp_path / "rgb.png", RGB))


def test_pictures_are_cases_only_where_there_is_nothing_else(tmp_path):
    _save(tmp_path / "images" / "a_0000.png", GREY)
    _save(tmp_path / "images" / "b_0000.tif", GREY)
    _save(tmp_path / "labels" / "a.png", GREY)
    assert [(scan.case, scan.label and scan.label.name) for scan in find_scans(tmp_path)] == [
        ("a", "a.png"),
        ("b", None),
    ]
    assert [scan.case for scan in find_scans(tmp_path / "images" / "b_0000.tif")] == ["b"]
    (tmp_path / "images" / "c.nii.gz").write_text("")
    (tmp_path / "labels" / "c.nii.gz").write_text("")
    assert [scan.case for scan in find_scans(tmp_path)] == ["c"] and set(find_labels(tmp_path / "labels")) == {"c"}
