"""tools/dataset_converters/pictures.py: what it writes is what trainings read, and its errors."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from mamba_vision.apis.fusion_preparation import wald_patches
from mamba_vision.apis.restoration_preparation import starts
from mamba_vision.datasets import RestorationDataset, SharpeningDataset
from mamba_vision.datasets.restoration_degradations import to_levels
from mamba_vision.utils import project_folder
from mamba_vision.utils.bicubic import bicubic_down
from mamba_vision.utils.picture_files import Picture, read_picture, write_picture

TOOL = str(project_folder("tools") / "dataset_converters" / "pictures.py")


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["pictures.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(TOOL, run_name="__main__")
    return ended.value.code, *capsys.readouterr()


def write(path: Path, height: int = 50, width: int = 61) -> np.ndarray:
    color = np.random.randint(0, 256, (height, width, 3)).astype(np.float32) / 255
    write_picture(path, Picture(color))
    return color


def test_join_bicubic_and_read(tmp_path, monkeypatch, capsys) -> None:
    root = tmp_path / "data"
    color = write(tmp_path / "DIV2K" / "0001.png")
    write(tmp_path / "Flickr2K" / "000001.png")
    folders = (tmp_path / "DIV2K", tmp_path / "Flickr2K")
    assert run(monkeypatch, capsys, "join", *folders, "-o", root / "DF2K/HR")[0] == 0
    assert run(monkeypatch, capsys, "join", *folders, "-o", root / "DF2K/HR")[0] == 0  # again: nothing to do
    out = root / "DF2K/LR_bicubic/X3"
    status, said, _ = run(monkeypatch, capsys, "bicubic", root / "DF2K/HR", "-o", out, "--scale", 3)
    assert status == 0 and "2 images, in" in said
    small = read_picture(out / "0001x3.png").color
    np.testing.assert_allclose(small, to_levels(bicubic_down(color[:48, :60], 3)), atol=1e-6)
    assert len(RestorationDataset("df2k", root, scale=3)) == 2
    status, _, errors = run(monkeypatch, capsys, "join", tmp_path / "DIV2K", tmp_path / "DIV2K", "-o", out)
    assert status == 1 and "expected one image of a name" in errors
    assert "from 2, found 1" in run(monkeypatch, capsys, "bicubic", out, "-o", out, "--scale", 1)[2]


def test_jpeg(tmp_path, monkeypatch, capsys) -> None:
    write(tmp_path / "HQ" / "a.png")
    assert run(monkeypatch, capsys, "jpeg", tmp_path / "HQ", "-o", tmp_path / "LQ", "--quality", 10)[0] == 0
    assert read_picture(tmp_path / "LQ" / "a.png").is_gray
    assert "quality: expected" in run(monkeypatch, capsys, "jpeg", tmp_path, "-o", tmp_path, "--quality", 0)[2]
    assert "no images in it" in run(monkeypatch, capsys, "jpeg", tmp_path, "-o", tmp_path, "--quality", 9)[2]


def test_crops_of_pairs(tmp_path, monkeypatch, capsys) -> None:
    color = write(tmp_path / "noisy" / "a.png")
    write_picture(tmp_path / "clean" / "a.png", Picture(1 - color))
    folders = (tmp_path / "noisy", tmp_path / "clean")
    outs = (tmp_path / "input_crops", tmp_path / "target_crops")
    status, said, _ = run(monkeypatch, capsys, "crops", *folders, "-o", *outs, "--size", 32, "--step", 20)
    assert status == 0 and "6 crops" in said and starts(50, 32, 20) == [0, 18] and starts(61, 32, 20) == [0, 20, 29]
    for one, two in zip(*(sorted(out.iterdir()) for out in outs)):
        assert one.name == two.name
        np.testing.assert_allclose(read_picture(one).color, 1 - read_picture(two).color, atol=1e-6)
    np.testing.assert_allclose(read_picture(outs[0] / "a_s006.png").color, color[18:, 29:], atol=1e-6)
    assert "of at least 99" in run(monkeypatch, capsys, "crops", *folders, "-o", *outs, "--size", 99)[2]
    assert "step: expected" in run(monkeypatch, capsys, "crops", *folders, "-o", *outs, "--size", 8, "--step", 9)[2]
    assert "as many for the crops" in run(monkeypatch, capsys, "crops", *folders, "-o", outs[0], "--size", 8)[2]
    write(tmp_path / "clean" / "a.png", 49)
    assert "expected one size" in run(monkeypatch, capsys, "crops", *folders, "-o", *outs, "--size", 32)[2]


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """A smooth scene, so that what is made smaller and larger again is what it was."""
    y, x = np.meshgrid(np.linspace(0, 3, 416), np.linspace(0, 4, 560), indexing="ij")
    fine = 1000 + 500 * np.sin(y) * np.cos(x)
    coarse = fine.reshape(104, 4, 140, 4).mean((1, 3))
    for name, array, pixel in (("ms", np.stack([coarse, 0.5 * coarse]), 2.0), ("pan", fine[None], 0.5)):
        settings = dict(driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2], dtype="uint16")
        with rasterio.open(tmp_path / f"{name}.tif", "w", crs="EPSG:32633", transform=from_origin(0, 0, pixel, pixel),
                           nodata=0, **settings) as raster:  # fmt: skip
            raster.write(np.rint(array).astype(np.uint16))
    return tmp_path / "ms.tif", tmp_path / "pan.tif"


def test_wald(scene, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "mine.h5"
    status, said, _ = run(monkeypatch, capsys, "wald", *scene, "-o", out, "--size", 32)
    assert status == 0 and "20 images, in" in said
    data = SharpeningDataset(file=str(out), peak=2047, pipeline=[dict(type="mamba_vision.PackSharpening")])
    packed = data[7]  # inside, where no border is near
    sample = packed["data_samples"]
    assert packed["inputs"]["ms"].shape == (2, 8, 8) and packed["inputs"]["pan"].shape == (1, 32, 32)
    np.testing.assert_allclose(2047 * sample.ms_image, 2047 * sample.gt_image[:, 2::4, 2::4], atol=3)
    np.testing.assert_allclose(2047 * packed["inputs"]["pan"][0], 2047 * sample.gt_image[0], atol=3)


def test_wald_errors(scene, tmp_path) -> None:
    with pytest.raises(ValueError, match="found 4, 30, 64"):
        wald_patches(*scene, tmp_path / "a.h5", size=30)
    with pytest.raises(ValueError, match="expected at least 128 a side"):
        wald_patches(*scene, tmp_path / "a.h5", size=128)
    with pytest.raises(ValueError, match="sensor: found 'Landsat'"):
        wald_patches(*scene, tmp_path / "a.h5", "Landsat")
    with rasterio.open(scene[0], "r+") as raster:
        raster.write(np.zeros((2, 104, 140), np.uint16))
    with pytest.raises(ValueError, match="every patch has missing values"):
        wald_patches(*scene, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
