"""Restoration data: files in and out, degradations against their definitions, layouts, pipelines, errors."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from scipy.io import savemat

from mamba_vision.datasets.restoration import LAYOUTS, RestorationDataset, SamplePhotographs, SIDDBlocks
from mamba_vision.datasets.restoration_degradations import camera_pass, gaussian_noise, jpeg
from mamba_vision.registry import TRANSFORMS
from mamba_vision.utils.bicubic import bicubic_down
from mamba_vision.utils.picture_files import Picture, luminance, picture_size, read_picture, write_picture


def image(height: int = 24, width: int = 32, channels: int = 3, bits: int = 8) -> np.ndarray:
    return np.random.randint(0, 2**bits, (height, width, channels)).astype(np.float32) / (2**bits - 1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels", "clear"), [(1, False), (3, False), (3, True)])
def test_round_trip(tmp_path: Path, suffix: str, bits: int, channels: int, clear: bool) -> None:
    picture = Picture(image(channels=channels, bits=bits), image(bits=bits)[..., 0] if clear else None, bits)
    write_picture(tmp_path / f"a{suffix}", picture)
    back = read_picture(tmp_path / f"a{suffix}")
    assert back.bits == bits and back.is_gray == (channels == 1) and picture_size(tmp_path / f"a{suffix}") == (24, 32)
    np.testing.assert_allclose(back.color, picture.color, atol=1e-6)
    assert (back.alpha is None) == (not clear)
    if clear:
        np.testing.assert_allclose(back.alpha, picture.alpha, atol=1e-6)


def test_gray_with_transparency_palette_and_profile(tmp_path: Path) -> None:
    Image.new("LA", (20, 10), (90, 128)).save(tmp_path / "la.png")
    gray = read_picture(tmp_path / "la.png")
    assert (
        gray.is_gray and gray.alpha.mean() == pytest.approx(128 / 255) and gray.color.mean() == pytest.approx(90 / 255)
    )
    Image.new("RGB", (20, 10), (200, 10, 60)).quantize(4).save(tmp_path / "palette.png")
    assert np.rint(255 * read_picture(tmp_path / "palette.png").color[0, 0]).tolist() == [200, 10, 60]


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".jpg", 8), (".png", 16), (".tif", 16)])
def test_color_profiles_are_kept_where_they_fit(tmp_path: Path, suffix: str, bits: int) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path, given = tmp_path / f"a{suffix}", Picture(image(bits=bits), None, bits, profile)
    write_picture(path, given)
    back = read_picture(path)
    assert back.profile == profile and back.bits == bits
    if suffix != ".jpg":
        np.testing.assert_allclose(back.color, given.color, atol=1e-6)
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype, np.dtype(f"uint{bits}"))
    write_picture(path, replace(given, color=given.color[..., :1]))
    assert read_picture(path).profile is None, "gray pixels are none of RGB"
    cmyk = profile[:16] + b"CMYK" + profile[20:]
    Image.new("CMYK", (20, 10), (0, 200, 90, 10)).save(tmp_path / "cmyk.jpg", icc_profile=cmyk)
    write_picture(path, replace(read_picture(tmp_path / "cmyk.jpg"), bits=bits))
    assert read_picture(path).profile is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_without_opencv_pictures_have_8_bits(tmp_path: Path, monkeypatch, suffix: str, channels: int) -> None:
    pictures = {bits: Picture(np.full((4, 5, channels), 0.2, np.float32), bits=bits) for bits in (8, 16)}
    for bits, picture in pictures.items():
        write_picture(tmp_path / f"{bits}{suffix}", picture)
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert np.allclose(read_picture(tmp_path / f"8{suffix}").color, 0.2)
    for work in (read_picture, lambda file: write_picture(file, pictures[16])):
        with pytest.raises(ValueError, match=r"16\.\w+: .*16 bits a channel, which need OpenCV: pip install"):
            work(tmp_path / f"16{suffix}")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_is_turned_upright_once(tmp_path: Path, order: str, channels: int, bits: int) -> None:
    """OpenCV and Pillow turn TIFF files on their own."""
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.randint(0, 2**bits, (10, 20, channels), dtype=f"uint{bits}")
    tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), photometric="rgb" if channels == 3 else "minisblack",
                     byteorder=order, extratags=[(0x0112, "H", 1, 6, True)])  # fmt: skip
    want = np.rot90(pixels, -1).astype(np.float32) / (2**bits - 1)
    np.testing.assert_allclose(read_picture(tmp_path / "a.tif").color, want, atol=1e-6)
    assert picture_size(tmp_path / "a.tif") == (20, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photographs_are_read_upright(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.random.randint(0, 256, (10, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        want = np.asarray(ImageOps.exif_transpose(stored), dtype=np.float32) / 255
    np.testing.assert_allclose(read_picture(tmp_path / "a.png").color, want, atol=1e-6)
    assert picture_size(tmp_path / "a.png") == want.shape[:2]


def test_files_that_cannot_be_read_or_written(tmp_path: Path, capfd) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png: expected an image"):
        read_picture(tmp_path / "text.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png"):
        read_picture(tmp_path / "empty.png")
    for name in ("cut.jpg", "cut.png"):
        cv2.imwrite(str(tmp_path / name), np.random.randint(0, 256, (64, 64, 3), dtype=np.uint8))
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=f"{name}: the image is damaged"):
            read_picture(tmp_path / name)
    assert capfd.readouterr().err == "", "OpenCV's own complaints"
    cv2.imwrite(str(tmp_path / "float.tif"), np.random.rand(8, 8).astype(np.float32))
    with pytest.raises(ValueError, match="8 or 16 bits a channel, found float32"):
        read_picture(tmp_path / "float.tif")
    clear, deep = Picture(image(), image()[..., 0]), Picture(image(), None, 16)
    for path, picture, match in (("a.jpg", clear, "transparency needs"), ("a.jpg", deep, "16 bits a channel need"),
                                 ("a.gif", deep, "expected one of the formats")):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            write_picture(tmp_path / path, picture)


def test_bicubic_is_matlabs() -> None:
    """Against imresize's definition: a cubic of a = -0.5 stretched by the scale, weights normed, borders mirrored."""

    def weights(length: int, scale: int) -> np.ndarray:
        matrix = np.zeros((length // scale, length))
        for row in range(length // scale):
            center = (row + 0.5) * scale - 0.5
            for place in range(int(np.floor(center - 2 * scale)), int(np.ceil(center + 2 * scale)) + 1):
                t = abs(place - center) / scale
                value = 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0
                mirrored = place % (2 * length)
                matrix[row, min(mirrored, 2 * length - 1 - mirrored)] += value
        return matrix / matrix.sum(1, keepdims=True)

    for scale in (2, 3, 4):
        x = np.random.rand(12 * scale, 9 * scale, 3).astype(np.float32)
        want = np.einsum("ia,jb,abc->ijc", weights(12 * scale, scale), weights(9 * scale, scale), x)
        np.testing.assert_allclose(bicubic_down(x, scale), want, atol=1e-5)
    with pytest.raises(ValueError, match="no multiples of the scale 2"):
        bicubic_down(np.zeros((5, 4, 3), np.float32), 2)


def test_noise_is_that_of_published_tests() -> None:
    x = image()
    np.random.seed(0)
    want = x[..., ::-1] + np.random.normal(0, 25 / 255, x.shape)  # the published code holds BGR
    np.testing.assert_allclose(gaussian_noise(x, 25, np.random.RandomState(0)), want[..., ::-1], atol=1e-6)


def test_jpeg_and_camera() -> None:
    smooth = cv2.GaussianBlur(image(64, 64), (0, 0), 4)
    for x in (smooth, luminance(smooth)):
        errors = [np.abs(jpeg(x, quality) - x).mean() for quality in (5, 40, 95)]
        assert errors[0] > errors[1] > errors[2] and jpeg(x, 10).shape == x.shape
        ranges = dict(blur=(0.2, 3), resize=(0.5, 1.2), noise=(1, 20), quality=(30, 90))
        seen = camera_pass(x, rng=np.random.RandomState(0), **ranges)
        assert seen.ndim == 3 and seen.dtype == np.float32 and seen.min() >= 0 and seen.max() <= 1


def step(name: str, **options) -> dict:
    return dict(type=f"mamba_vision.{name}", **options)


def pipeline(*steps: dict):
    from mmengine.dataset import Compose

    return Compose([TRANSFORMS.build(dict(one)) for one in steps])


DEGRADE = [
    (step("MakeBicubic"), 2),
    (step("MakeNoisy", sigma=(5, 50)), 1),
    (step("MakeJpeg", quality=(10, 40)), 1),
    (step("MakeRealistic"), 4),
]


@pytest.mark.parametrize(("make", "scale"), DEGRADE)
@pytest.mark.parametrize("channels", [1, 3])
def test_pairs_made_on_the_fly(tmp_path: Path, make: dict, scale: int, channels: int) -> None:
    write_picture(tmp_path / "a.png", Picture(image(49, 66)))
    run = pipeline(
        step("LoadImagePair", scale=scale, channels=channels), step("RandomPairCrop", gt_size=32), make,
        step("RandomFlipTurn"), step("PackImagePair"),
    )  # fmt: skip
    packed = run(dict(gt_path=str(tmp_path / "a.png"), name="a"))
    assert packed["inputs"].shape == (channels, 32 // scale, 32 // scale) and packed["inputs"].dtype == torch.float32
    assert packed["data_samples"].gt_image.shape == (channels, 32, 32) and packed["data_samples"].scale == scale


def test_crop_and_turns_keep_pairs_together(tmp_path: Path) -> None:
    """The degraded image is every third pixel of the truth; so it is after cropping and turning."""
    gt = image(61, 76)
    run = pipeline(
        step("LoadImagePair", scale=3), step("RandomPairCrop", gt_size=24), step("RandomFlipTurn"),
        step("PackImagePair"),
    )  # fmt: skip
    blocks = gt[:60, :75].repeat(1, 0)
    for _ in range(8):
        lq = blocks.reshape(20, 3, 25, 3, 3).mean((1, 3))
        packed = run(dict(gt=gt, lq=lq, name="a"))
        pooled = torch.nn.functional.avg_pool2d(packed["data_samples"].gt_image, 3)
        torch.testing.assert_close(packed["inputs"], pooled)


def layout(root: Path, name: str, scale: int = 2, quality: int = 40, count: int = 2) -> None:
    """A miniature of a published data set."""
    folders = LAYOUTS[name]
    for number in range(count):
        paths = [root / folders["gt"] / f"img{number}.png"]
        if "lq" in folders:
            lq_name = folders["lq_name"].format(stem=f"img{number}", scale=scale, quality=quality)
            paths.append(root / folders["lq"].format(scale=scale, quality=quality) / f"{lq_name}.png")
        for path, side in zip(paths, (24 * scale + 1, 24)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, Picture(image(side, side)))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_published_layouts(tmp_path: Path, name: str) -> None:
    scale = 2 if "{scale}" in LAYOUTS[name].get("lq", "") else 1
    layout(tmp_path, name, scale=2) if scale == 2 else None
    if scale == 1:
        folders = LAYOUTS[name]
        for number in range(2):
            for folder in filter(None, (folders["gt"], folders.get("lq", "").format(quality=40))):
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
                write_picture(tmp_path / folder / f"img{number}.png", Picture(image()))
    steps = [step("LoadImagePair", scale=scale)]
    steps += [] if LAYOUTS[name].get("lq") else [step("MakeNoisy", sigma=25, seed=0)]
    data = RestorationDataset(
        name,
        tmp_path,
        scale=scale,
        quality=40,
        pipeline=[*steps, step("PackImagePair")],
        test_mode=True,
    )
    assert len(data) == 2 and data[1]["data_samples"].name == "img1"
    side = data[0]["inputs"].shape[1]
    assert data[0]["data_samples"].gt_image.shape[1] == scale * side


def test_all_problems_of_a_data_set_are_named(tmp_path: Path) -> None:
    layout(tmp_path, "set5", count=4)
    folder = tmp_path / "SR/Set5/LR_bicubic/X2"
    with pytest.raises(ValueError, match=r"scale 3: img0.png 49 x 49 and img0x2.png 24 x 24, .*img3"):
        RestorationDataset("set5", tmp_path, scale=3, lq="SR/Set5/LR_bicubic/X2", lq_name="{stem}x2")
    (folder / "img1x2.png").unlink()
    (folder / "img3x2.png").unlink()
    with pytest.raises(FileNotFoundError, match="no degraded images img1x2, img3x2"):
        RestorationDataset("set5", tmp_path, scale=2)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        RestorationDataset("urban100", tmp_path, scale=2)
    with pytest.raises(ValueError, match="layout: found 'set6'"):
        RestorationDataset("set6", tmp_path)
    with pytest.raises(ValueError, match="quality: layout 'live1'"):
        RestorationDataset("live1", tmp_path)
    with pytest.raises(ValueError, match="gt: expected a folder"):
        RestorationDataset()


def test_sidd_blocks(tmp_path: Path) -> None:
    blocks = np.random.randint(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    savemat(tmp_path / "ValidationNoisyBlocksSrgb.mat", {"ValidationNoisyBlocksSrgb": blocks})
    with pytest.raises(FileNotFoundError, match=r"ValidationGtBlocksSrgb\.mat"):
        SIDDBlocks(tmp_path)
    savemat(tmp_path / "ValidationGtBlocksSrgb.mat", {"ValidationGtBlocksSrgb": 255 - blocks})
    data = SIDDBlocks(
        tmp_path,
        pipeline=[step("LoadImagePair"), step("PackImagePair")],
        test_mode=True,
    )
    assert len(data) == 6 and data[4]["data_samples"].name == "01_01"
    torch.testing.assert_close(data[4]["inputs"] + data[4]["data_samples"].gt_image, torch.ones(3, 16, 16))
    savemat(tmp_path / "ValidationGtBlocksSrgb.mat", {"ValidationGtBlocksSrgb": blocks[..., 0]})
    with pytest.raises(ValueError, match="uint8 of shape"):
        SIDDBlocks(tmp_path)


def test_sample_photographs() -> None:
    steps = [step("LoadImagePair", scale=2), step("CropToMultiple"), step("MakeBicubic"),
             step("PackImagePair")]  # fmt: skip
    train, test = SamplePhotographs("train", repeat=3, pipeline=steps), SamplePhotographs("test", pipeline=steps)
    assert len(train) == 6 and train[0]["data_samples"].gt_image.shape == (3, 426, 448)
    assert len(test) == 16 and test[0]["inputs"].shape == (3, 48, 48)
    detailed = SamplePhotographs("test", tile=64, detail=0.1, pipeline=steps)
    assert len(detailed) == 8 and all(one["data_samples"].gt_image.mean(0).std() > 0.1 for one in detailed)
    with pytest.raises(ValueError, match="split: found"):
        SamplePhotographs("val")


def test_transform_errors(tmp_path: Path) -> None:
    write_picture(tmp_path / "gray.png", Picture(image(channels=1)))
    with pytest.raises(ValueError, match=r"gray\.png: found one channel \(gray\), expected three"):
        pipeline(step("LoadImagePair"))(dict(gt_path=str(tmp_path / "gray.png")))
    load = pipeline(step("LoadImagePair", scale=2))
    with pytest.raises(ValueError, match=r"found 24 x 32 pixels, expected 20 x 20, 2 times .* 10 x 10"):
        load(dict(gt=image(), lq=image(10, 10)))
    ready = dict(gt=image(), scale=2, name="a")
    with pytest.raises(ValueError, match="multiple of the scale 2, found 15"):
        pipeline(step("RandomPairCrop", gt_size=15))(dict(ready))
    with pytest.raises(ValueError, match="expected at least 64"):
        pipeline(step("RandomPairCrop", gt_size=64))(dict(ready))
    with pytest.raises(ValueError, match="there is no degraded image"):
        pipeline(step("PackImagePair"))(dict(ready))
    with pytest.raises(ValueError, match="found values from 0 to 255, expected 0 to 1"):
        pipeline(step("PackImagePair"))(dict(gt=np.float32([[[0], [255]]]), lq=image(1, 2, 1), scale=1))
    for wrong, match in (
        (step("MakeNoisy", sigma=(5, 1)), "sigma"),
        (step("MakeJpeg", quality=0), "quality"),
        (step("MakeRealistic", blur=(3, 1)), "blur: expected a rising range"),
        (step("LoadImagePair", channels=2), "channels 1 or 3"),
    ):
        with pytest.raises(ValueError, match=match):
            TRANSFORMS.build(wrong)


def test_several_sets_in_one_loader(tmp_path: Path) -> None:
    from mmengine.registry import DATASETS, DefaultScope

    for name in ("set5", "manga109"):
        layout(tmp_path, name)
    one = dict(type="RestorationDataset", data_root=str(tmp_path), scale=2, test_mode=True,
               pipeline=[dict(type="LoadImagePair", scale=2), dict(type="PackImagePair")])  # fmt: skip
    with DefaultScope.overwrite_default_scope("mamba_vision"):
        data = DATASETS.build(
            dict(type="ConcatDataset", datasets=[dict(one, layout=name) for name in ("set5", "manga109")])
        )
    assert [data[i]["data_samples"].dataset for i in range(len(data))] == ["set5", "set5", "manga109", "manga109"]


def test_seeded_degradations_repeat() -> None:
    for make in (step("MakeRealistic", seed=3), step("MakeNoisy", sigma=20, seed=3)):
        run, gt = TRANSFORMS.build(make), image(32, 32)
        pair = [run(dict(gt=gt, scale=4 if "Realistic" in make["type"] else 1))["lq"] for _ in range(2)]
        assert np.array_equal(*pair)


def test_several_layouts_in_one_and_the_scale_that_they_say(tmp_path: Path) -> None:
    for name in ("Set5", "Set14"):
        write_picture(tmp_path / f"SR/{name}/HR/a.png", Picture(image(9, 12)))
        write_picture(tmp_path / f"SR/{name}/LR_bicubic/X3/ax3.png", Picture(image(3, 4)))
    steps = [dict(type="mamba_vision.LoadImagePair"), dict(type="mamba_vision.PackImagePair")]
    data = RestorationDataset(["set5", "set14"], tmp_path, scale=3, pipeline=steps)
    samples = [data[i]["data_samples"] for i in range(len(data))]
    assert [sample.dataset for sample in samples] == ["set5", "set14"] and samples[0].scale == 3
    with pytest.raises(ValueError, match="layout: found 'set6'"):
        RestorationDataset(["set5", "set6"], tmp_path)
