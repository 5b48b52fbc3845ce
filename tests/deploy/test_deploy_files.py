"""Files in and out of the command line of exported models, as PyTorch's tools have them; the networks are simple."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from mamba_vision.apis.fusion_run import FuseOptions, fuse_files
from mamba_vision.apis.restoration import restore_picture
from mamba_vision.deploy import command
from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.deploy.pictures import read_rgb
from mamba_vision.deploy.prompt import PromptSegmentor
from mamba_vision.models.tasks import ImageRestorer, ImageSharpener
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.utils.image_files import read_image
from mamba_vision.utils.picture_files import Picture, read_picture, write_picture


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()), requires_grad=False)


class Larger(Network):
    """Twice as large, and darker at the edges of what it is given."""

    in_channels, upscale = 3, 2

    def forward(self, x):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.weight * x * torch.linspace(0.5, 1, x.shape[3])


class Shaded(Network):
    """A sharpener of one pixel: the image, repeated, times its guide."""

    guide_channels, scale, bands = 1, 2, 3

    def forward(self, image, guide):
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3) * guide * self.weight


class OfPyTorch(ModelFile):
    """Stands for an exported network."""

    def __init__(self, network: torch.nn.Module, **info) -> None:
        self.network, self.info, self.path = network, info, Path("model.onnx")
        self.inputs = dict.fromkeys(("first", "second"), (None,) * 4)

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        return self.network(*map(torch.from_numpy, arrays)).numpy()


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line with a network in place of a file: exit status, stdout and stderr."""

    def run(model: ModelFile, verb: str, *arguments) -> SimpleNamespace:
        monkeypatch.setattr(command, "ModelFile", lambda *_: model)
        status = command.main([verb, "model.onnx", *map(str, arguments)])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run


@pytest.fixture
def larger() -> OfPyTorch:
    return OfPyTorch(Larger(), task="restoration", channels=3, scale=2, tiling={"tile": 16})


@pytest.fixture
def shaded() -> OfPyTorch:
    info = {"scale": 2, "bands": 3, "guide_channels": 1, "peak": 2047.0}
    return OfPyTorch(Shaded(), task="sharpening", **info)


def picture(size: tuple[int, int], channels: int, bits: int, clear: bool = False) -> Picture:
    rng = np.random.default_rng(0)
    alpha = rng.random(size, dtype=np.float32) if clear else None
    return Picture(rng.random((*size, channels), dtype=np.float32), alpha, bits)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels", "clear"), [(3, True), (1, False)])
def test_restored_pictures_stay_what_they_are(run, larger, tmp_path: Path, bits: int, channels: int, clear: bool):
    file = tmp_path / "a picture é.png"
    write_picture(file, picture((30, 19), channels, bits, clear))
    ended = run(larger, "restore", file, "-o", tmp_path / "out")
    assert ended.status == 0, ended.err
    found, before = read_picture(tmp_path / "out" / file.name), read_picture(file)
    want = restore_picture(ImageRestorer(larger.network), before, Tiling(tile=16))
    assert found.bits == bits and found.color.shape == want.color.shape == (60, 38, channels)
    assert np.abs(found.color - want.color).max() < 0.6 / (2**bits - 1)
    assert not clear or np.abs(found.alpha - want.alpha).max() < 0.6 / (2**bits - 1)


def test_pictures_of_one_name_and_turned_ones(run, larger, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(levels[..., :3]).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif)
    (tmp_path / "._a.png").write_bytes(b"what another system leaves beside it")
    ended = run(larger, "restore", tmp_path, "-o", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "a_2.png"]
    found = read_picture(tmp_path / "out" / "a_2.png")
    assert found.color.shape == (60, 40, 3) and found.alpha.shape == (60, 40)
    assert np.array_equal(read_rgb(tmp_path / "a.jpg"), read_image(tmp_path / "a.jpg")[..., ::-1])
    ended = run(larger, "restore", tmp_path / "a.png", "-o", tmp_path / "a.png")
    assert ended.status == 1 and "the result would overwrite it" in ended.err


def test_sixteen_bits_and_luminance_for_classifiers(tmp_path: Path):
    """As OpenCV, which PyTorch's tools read with: the upper bits, and a JPEG's own luminance."""
    levels = np.random.default_rng(0).integers(0, 65536, (20, 30), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB").rotate(1, expand=True).save(tmp_path / "a.jpg")
    for name in ("deep.png", "a.jpg"):
        for channels in (1, 3):
            want = read_image(tmp_path / name, channels)[..., ::-1]
            assert np.array_equal(read_rgb(tmp_path / name, channels), want), (name, channels)
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(ValueError, match=r"real\.tif: .*32 bits a channel"):
        read_rgb(tmp_path / "real.tif")
    Image.new("L", (300, 1)).save(tmp_path / "long.png")
    with pytest.raises(ValueError, match=r"long\.png: 300 x 1 pixels, expected sides of at most 100:1"):
        read_rgb(tmp_path / "long.png")


def test_sharpened_pictures_and_arrays(run, shaded, tmp_path: Path):
    for name, kind in (("ms", picture((20, 14), 3, 16)), ("pan", picture((40, 28), 1, 8))):
        write_picture(tmp_path / f"{name}.png", kind)
    pair = [tmp_path / "ms.png", tmp_path / "pan.png"]
    ended = run(shaded, "fuse", *pair, "-o", tmp_path / "out.png")
    assert ended.status == 0, ended.err
    model = ImageSharpener(Shaded(), peak=2047.0)
    fuse_files(model, *pair, tmp_path / "want.png", FuseOptions(preview=False))
    want, found = (read_picture(tmp_path / f"{name}.png") for name in ("want", "out"))
    assert found.bits == want.bits == 16 and np.abs(found.color - want.color).max() < 1e-4
    np.save(tmp_path / "ms.npy", np.full((3, 20, 14), 2047))
    np.save(tmp_path / "pan.npy", np.full((1, 40, 28), 100))
    ended = run(shaded, "fuse", tmp_path / "ms.npy", tmp_path / "pan.npy", "-o", tmp_path / "out.npy")
    assert ended.status == 0 and np.allclose(np.load(tmp_path / "out.npy"), 100)
    for first, message in (
        (np.ones((3, 20)), "image: found shape (3, 20), expected (3, rows, columns)"),
        (np.full((3, 20, 14), np.nan), "image: found values that are not finite"),
    ):
        np.save(tmp_path / "bad.npy", first)
        ended = run(shaded, "fuse", tmp_path / "bad.npy", tmp_path / "pan.npy", "-o", tmp_path / "bad_out.npy")
        assert ended.status == 2 and message in ended.err
    ended = run(shaded, "fuse", *pair, "-o", pair[0])
    assert ended.status == 2 and "the result would overwrite it" in ended.err


def test_sharpened_geotiff(run, shaded, tmp_path: Path):
    rng = np.random.default_rng(0)
    sides = {"ms": (rng.integers(1, 2000, (3, 20, 14)), 2.0), "pan": (rng.integers(1, 2000, (1, 40, 28)), 1.0)}
    for name, (values, pixel) in sides.items():
        values[:, 3:5, :6] = 0
        settings = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "nodata": 0}
        settings |= {"crs": "EPSG:32633", "transform": from_origin(0, 0, pixel, pixel), "dtype": "uint16"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **settings) as raster:
            raster.write(values.astype(np.uint16))
    pair = [tmp_path / "ms.tif", tmp_path / "pan.tif"]
    ended = run(shaded, "fuse", *pair, "-o", tmp_path / "out.tif")
    assert ended.status == 0, ended.err
    fuse_files(ImageSharpener(Shaded(), peak=2047.0), *pair, tmp_path / "want.tif", FuseOptions(preview=False))
    with rasterio.open(tmp_path / "out.tif") as found, rasterio.open(tmp_path / "want.tif") as want:
        assert found.profile == want.profile and np.array_equal(found.read(), want.read())


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("segmentation", ["segment", "a.png", "-o", "m.jpg"], "m.jpg: expected a name that ends in .png"),
        ("promptable", ["prompt", "a.png", "-o", "m.jpg"], "m.jpg: expected a name that ends in .png"),
        ("classification", ["classify", "a.png", "-o", "."], ".: a folder, expected a file for the classes"),
        ("sharpening", ["fuse", ".", "."], ".: expected a picture, GeoTIFF or .npy; tools/fuse.py takes folders"),
        ("sharpening", ["fuse", "a.npy", "a.png"], "a.npy: damaged, or no array of numbers in NumPy's format"),
        ("restoration", ["restore", "b.png"], "b.png: no such image or folder"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    run, tmp_path: Path, monkeypatch, task: str, arguments: list, message: str
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("a.png")
    Path("a.npy").write_bytes(b"no array")
    info = {"scale": 2, "bands": 3, "guide_channels": 1, "peak": 1, "preprocess": {}}
    ended = run(OfPyTorch(Network(), task=task, **info), *arguments)
    assert ended.status == 2 and message in ended.err


def test_prompts_outside_of_the_picture(tmp_path: Path):
    model = OfPyTorch(Network(), task="promptable", preprocess={"mean": [0], "std": [1], "rgb": True})
    model.inputs = {"boxes": (1, 4, 4), "points": (1, 8, 2)}
    array = np.zeros((20, 30, 3), np.uint8)
    for prompts, message in (
        ({"boxes": [[5, 5, 5, 9]]}, "boxes: found 5 5 5 9, expected x1 < x2 and y1 < y2, in 30 x 20 pixels"),
        ({"boxes": [[31, 5, 40, 9]]}, "boxes: found 31 5 40 9"),
        ({"points": [[30, 5]]}, "points: found 30 5, expected a place in 30 x 20 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            PromptSegmentor(model)(array, **prompts)
