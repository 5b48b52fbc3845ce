"""tools/fuse.py as it is typed, and what it is made of: pictures, folders, GeoTIFFs, volumes, failures."""

import runpy
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from mamba_vision.apis.fusion import PUBLISHED, fuse_pictures, init_fuser
from mamba_vision.apis.fusion_rasters import fuse_rasters, raster_preview
from mamba_vision.apis.fusion_run import FuseOptions, collect_pairs, fuse_files, kind_of
from mamba_vision.apis.fusion_volumes import fuse_volumes, slice_axis, volume_preview
from mamba_vision.apis.pixel_model import recognize
from mamba_vision.checkpoints import CheckpointError, published_names
from mamba_vision.models.networks import FusionMamba, MambaDFuse
from mamba_vision.models.tasks import ImageFuser, ImageSharpener
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.utils import project_folder
from mamba_vision.utils.picture_files import Picture, luminance, read_picture, write_picture
from mamba_vision.utils.rasters import is_raster, open_raster
from mamba_vision.volumes.volume import VolumeError

TOOL = str(project_folder("tools") / "fuse.py")
UTM = "EPSG:32633"


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, stdout and stderr, in this process."""
    monkeypatch.setattr(sys, "argv", ["fuse.py", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(TOOL, run_name="__main__")
    return ended.value.code, *capsys.readouterr()


class Brighter(torch.nn.Module):
    """A fuser that takes the brighter pixel."""

    in_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, first, second):
        return self.weight * torch.maximum(first, second)


class Shaded(torch.nn.Module):
    """A sharpener that looks at one pixel: the image, repeated, times its guide."""

    guide_channels, scale = 1, 4

    def __init__(self, bands: int = 4) -> None:
        super().__init__()
        self.weight, self.bands = torch.nn.Parameter(torch.ones(())), bands

    def forward(self, ms, pan):
        return self.weight * ms.repeat_interleave(4, 2).repeat_interleave(4, 3) * pan


def picture(height: int = 20, width: int = 33, channels: int = 3, bits: int = 8) -> Picture:
    levels = 2**bits - 1
    return Picture(np.random.randint(0, levels, (height, width, channels)).astype(np.float32) / levels, None, bits)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Published weights of a tiny fuser."""
    model = MambaDFuse("tiny")
    state = {theirs: model.state_dict()[ours] for ours, theirs in published_names(model).items()}
    torch.save({"params": state}, tmp_path / "tiny_E.pth")
    return tmp_path / "tiny_E.pth"


def test_folders_with_failures(tmp_path, monkeypatch, capsys, weights: Path) -> None:
    for name, channels in (("a", 1), ("b", 1), ("c", 1)):
        write_picture(tmp_path / "ir" / f"{name}.png", picture(channels=channels))
        write_picture(tmp_path / "vi" / f"{name}.jpg", picture(width=32 if name == "b" else 33))
    (tmp_path / "vi" / "c.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    options = ("-o", out, "--checkpoint", weights, "--arch", "MambaDFuse:tiny", "--device", "cpu", "--tile", 16)
    status, said, errors = run(monkeypatch, capsys, tmp_path / "ir", tmp_path / "vi", *options)
    assert status == 1 and "1 of 3 fused" in said and "MambaDFuse tiny, on cpu" in said
    assert "found pictures of 33 x 20 and 32 x 20 pixels, expected one size" in errors
    assert "c.jpg: expected an image" in errors and errors.count("failed:") == 2
    assert sorted(file.name for file in out.iterdir()) == ["a.png", "a_before_after.png", "finished.jsonl"]
    assert read_picture(out / "a.png").color.shape == (20, 33, 3)  # the visible image's color
    for resumes in ("--skip-existing", "--resume"):
        status, said, _ = run(monkeypatch, capsys, tmp_path / "ir" / "a.png", tmp_path / "vi" / "a.jpg", *options,
                              resumes)  # fmt: skip
        assert status == 0 and "is there" in said


def test_usage_errors(tmp_path, monkeypatch, capsys, weights: Path) -> None:
    one = tmp_path / "a.png"
    write_picture(one, picture())
    (tmp_path / "folder").mkdir()
    for arguments, match in (
        ([one, one], "no model"),
        ([one, one, "--checkpoint", weights, "--tile", 3], "--tile: expected 0 or at least 16"),
        ([one, one, "--checkpoint", weights, "--peak", 0], "--peak: expected a positive"),
        ([one, one, "--checkpoint", weights], "none of the published variants"),
        ([one, one, "--checkpoint", weights, "--arch", "SwinFusion"], "expected NETWORK:VARIANT of"),
        ([one, tmp_path / "none.png", "--checkpoint", weights], "no such file or folder"),
        ([one, tmp_path / "folder", "--checkpoint", weights], "expected two files, or two folders"),
        ([tmp_path / "folder", tmp_path / "folder", "--checkpoint", weights], "no images in it"),
    ):
        status, out, err = run(monkeypatch, capsys, *arguments, "-o", tmp_path / "out")
        assert status == 2 and match in out + err, (arguments, out, err)


def test_a_trained_folder_sharpens(tmp_path, monkeypatch, capsys) -> None:
    work = tmp_path / "work"
    work.mkdir()
    network = dict(arch="tiny", bands=3, upsampler="bicubic")
    (work / "config.py").write_text(
        "default_scope = 'mamba_vision'\n"
        f"model = dict(type='ImageSharpener', network=dict(type='FusionMamba', **{network}), tiling=dict(tile=16))\n"
    )
    state = {f"network.{name}": value for name, value in FusionMamba(**network).state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, work / "best_ERGAS.pth")
    write_picture(tmp_path / "small.png", picture(9, 12))
    write_picture(tmp_path / "guide.png", picture(36, 48, channels=1))
    arguments = ("--config", work, "-o", tmp_path / "sharp.tif", "--device", "cpu")
    status, said, _ = run(monkeypatch, capsys, tmp_path / "small.png", tmp_path / "guide.png", *arguments)
    assert status == 0 and "1 of 1 fused" in said and read_picture(tmp_path / "sharp.tif").color.shape == (36, 48, 3)
    status, _, errors = run(monkeypatch, capsys, tmp_path / "guide.png", tmp_path / "guide.png", *arguments)
    assert status == 1 and "found 1 bands, this network takes 3" in errors
    write_picture(tmp_path / "guide.png", picture(36, 47, channels=1))
    status, _, errors = run(monkeypatch, capsys, tmp_path / "small.png", tmp_path / "guide.png", *arguments)
    assert status == 1 and "expected the second one 4 times larger, 48 x 36" in errors


def test_color_is_kept() -> None:
    model = ImageFuser(Brighter()).eval()
    gray, color = picture(channels=1), picture()
    fused = fuse_pictures(model, gray, color, Tiling(tile=16))
    y = np.maximum(gray.color, luminance(color.color))
    np.testing.assert_allclose(fused.color, np.clip(color.color + y - luminance(color.color), 0, 1), atol=1e-5)
    np.testing.assert_allclose(fuse_pictures(model, color, gray).color, fused.color, atol=1e-5)
    both = fuse_pictures(model, gray, picture(channels=1, bits=16))
    assert both.is_gray and both.bits == 16
    model.network.in_channels = 3
    with pytest.raises(ValueError, match=r"first picture: found one channel \(gray\), this network needs three"):
        fuse_pictures(model, gray, color)
    assert fuse_pictures(model, color, color).color.shape == (20, 33, 3)


def scene(path: Path, array: np.ndarray, pixel: float, corner=(500000.0, 5400000.0), **options) -> Path:
    settings = dict(crs=UTM, transform=from_origin(*corner, pixel, pixel)) | options
    with rasterio.open(path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2],
                       dtype=array.dtype, **settings) as raster:  # fmt: skip
        raster.write(array)
        raster.descriptions = [f"band {k}" for k in range(len(array))]
        raster.update_tags(ACQUIRED="2026-01-01")
    return path


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ms, pan = (rng.integers(1, 2048, shape).astype(np.uint16) for shape in ((4, 53, 70), (1, 212, 280)))
    return scene(tmp_path / "ms.tif", ms, 2.0, nodata=0), scene(tmp_path / "pan.tif", pan, 0.5), ms, pan


def test_geotiff(scenes, tmp_path: Path) -> None:
    ms_path, pan_path, ms, pan = scenes
    ms[:, 3, 5] = 0  # missing
    scene(ms_path, ms, 2.0, nodata=0)
    model = ImageSharpener(Shaded(), peak=2047.0).eval()
    assert is_raster(ms_path) and kind_of(ms_path, pan_path) == "raster"
    steps = []
    fuse_files(model, ms_path, pan_path, tmp_path / "out.tif", FuseOptions(tiling=Tiling(tile=16)),
               lambda done, total: steps.append((done, total)))  # fmt: skip
    with open_raster(tmp_path / "out.tif") as result, open_raster(pan_path) as guide:
        assert result.crs == guide.crs and result.transform == guide.transform and result.nodata == 0
        assert result.dtypes == ("uint16",) * 4 and result.descriptions[2] == "band 2"
        assert result.tags()["ACQUIRED"] == "2026-01-01"
        got = result.read()
    want = np.rint(ms.repeat(4, 1).repeat(4, 2) / 2047.0 * pan)
    valid = np.ones((212, 280), bool)
    valid[12:16, 20:24] = False
    assert np.abs(got.astype(float) - want)[:, valid].max() <= 1 and not got[:, ~valid].any()
    assert steps[-1] == (20, 20) and (tmp_path / "out_before_after.png").is_file()


def test_geotiff_pieces_are_the_whole(scenes, tmp_path: Path) -> None:
    """What is read window by window is what the images in memory give."""
    ms_path, pan_path, ms, pan = scenes
    model = ImageSharpener(FusionMamba("tiny", bands=4), peak=2047.0).eval()
    fuse_rasters(model, ms_path, pan_path, tmp_path / "out.tif", tiling=Tiling(tile=40))
    whole = model.sharpen(*(torch.from_numpy(a[None] / np.float32(2047)) for a in (ms, pan)), Tiling(tile=40))
    with open_raster(tmp_path / "out.tif") as result:
        assert np.abs(result.read() - 2047 * whole[0].numpy()).max() <= 0.51


def test_geotiffs_of_two_sensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    radar, colors = (rng.integers(0, 256, (bands, 40, 50)).astype(np.uint8) for bands in (1, 3))
    one, two = scene(tmp_path / "radar.tif", radar, 10.0), scene(tmp_path / "colors.tif", colors, 10.0)
    fuse_rasters(ImageFuser(Brighter()).eval(), one, two, tmp_path / "out.tif")
    want = fuse_pictures(
        ImageFuser(Brighter()).eval(), *(Picture(a.transpose(1, 2, 0) / np.float32(255)) for a in (radar, colors))
    )
    with open_raster(tmp_path / "out.tif") as result:
        assert result.crs == rasterio.CRS.from_string(UTM) and result.count == 3
        np.testing.assert_array_equal(result.read(), np.rint(255 * want.color).transpose(2, 0, 1))


def test_rasters_are_fused_piece_by_piece(tmp_path: Path) -> None:
    """As the pictures in memory are; missing where either is."""
    rng = np.random.default_rng(0)
    radar, colors = (rng.integers(1, 256, (bands, 40, 53)).astype(np.uint8) for bands in (1, 3))
    radar[0, 30, 7] = colors[1, 2, 3] = 0
    one, two = (
        scene(tmp_path / "radar.tif", radar, 10.0, nodata=0),
        scene(tmp_path / "colors.tif", colors, 10.0, nodata=0),
    )
    model, steps = ImageFuser(MambaDFuse("tiny")).eval(), []
    torch.nn.init.constant_(model.network.conv_last3.bias, 0.5)
    for tile in (16, 1000):
        fuse_rasters(model, one, two, tmp_path / "out.tif", tiling=Tiling(tile=tile),
                     progress=lambda done, total: steps.append((done, total)))  # fmt: skip
        pictures = (Picture(a.transpose(1, 2, 0) / np.float32(255)) for a in (radar, colors))
        want = np.rint(255 * fuse_pictures(model, *pictures, Tiling(tile=tile)).color).transpose(2, 0, 1)
        want[:, 30, 7] = want[:, 2, 3] = 0
        with open_raster(tmp_path / "out.tif") as result:
            assert np.abs(result.read() - want).max() <= 1 and result.nodata == 0
            assert not result.read()[:, [30, 2], [7, 3]].any()
    assert (12, 12) in steps and steps[-1] == (1, 1)


def test_previews_leave_missing_values_out(tmp_path: Path) -> None:
    image = np.linspace(10, 20, 12, dtype=np.float32).reshape(1, 3, 4)
    image[0, 1, 1] = -9999
    shown = raster_preview(scene(tmp_path / "a.tif", image, 10.0, nodata=-9999))
    assert shown[1, 1] == 0 and shown.max() == 1 and np.sort(shown.ravel())[2] == pytest.approx(1 / 11)


def test_rasters_without_a_place(scenes, tmp_path: Path, recwarn) -> None:
    """Eight bands and no georeference: no picture, but pixels say what goes with what."""
    rng = np.random.default_rng(0)
    nowhere = dict(crs=None, transform=None)
    ms = scene(tmp_path / "bands.tif", rng.integers(1, 255, (8, 16, 20)).astype(np.uint8), 1.0, **nowhere)
    pan = scene(tmp_path / "gray.tif", rng.integers(1, 255, (1, 64, 80)).astype(np.uint8), 1.0, **nowhere)
    recwarn.clear()
    assert kind_of(ms, pan) == "raster"
    fuse_rasters(ImageSharpener(Shaded(8), peak=255.0).eval(), ms, pan, tmp_path / "out.tif")
    with open_raster(tmp_path / "out.tif") as result:
        assert result.count == 8 and result.crs is None and (result.height, result.width) == (64, 80)
    assert not [str(warning.message) for warning in recwarn if "georeference" in str(warning.message)]


def test_raster_errors(scenes, tmp_path: Path, monkeypatch) -> None:
    ms_path, pan_path, ms, _ = scenes
    model = ImageSharpener(Shaded(), peak=2047.0).eval()
    out = tmp_path / "out.tif"
    for other, match in (
        (scene(tmp_path / "bands.tif", ms[:3], 2.0), "found 3 bands, this network takes 4"),
        (scene(tmp_path / "size.tif", ms[:, :50], 2.0), "found 50 x 70 and 212 x 280 pixels, expected 200 x 280"),
        (scene(tmp_path / "place.tif", ms, 2.0, (500100.0, 5400000.0)), "their corners lie 50 pixels"),
        (scene(tmp_path / "crs.tif", ms, 2.0, crs="EPSG:32632"), "found coordinate systems"),
        (scene(tmp_path / "range.tif", ms * 16, 2.0), r"expected 0 to 2047. Give the counts"),
        (scene(tmp_path / "scaled.tif", (ms / 2047).astype(np.float32), 2.0), "expected 0 to 2047"),
        (
            scene(tmp_path / "nan.tif", np.where(ms < 1000, np.nan, ms).astype(np.float32), 2.0),
            "are not finite; declare",
        ),
        (scene(tmp_path / "complex.tif", ms.astype(np.complex64), 2.0), "expected real numbers"),
        (scene(tmp_path / "empty.tif", np.zeros_like(ms), 2.0, nodata=0), "every pixel is marked as missing"),
    ):
        with pytest.raises(ValueError, match=match):
            fuse_rasters(model, other, pan_path, out)
    with pytest.raises(ValueError, match=r"ending in \.tif"):
        fuse_rasters(model, ms_path, pan_path, tmp_path / "out.png")
    with pytest.raises(FileNotFoundError, match=r"none\.tif: no such file"):
        fuse_rasters(model, tmp_path / "none.tif", pan_path, out)
    (tmp_path / "broken.tif").write_bytes(ms_path.read_bytes()[:20])
    with pytest.raises(ValueError, match="damaged, or no raster"):
        fuse_rasters(model, tmp_path / "broken.tif", pan_path, out)
    three = Brighter()
    three.in_channels = 3
    with pytest.raises(ValueError, match="found one band"):
        fuse_rasters(ImageFuser(three), pan_path, pan_path, out)
    with pytest.raises(ValueError, match="found 4 bands, expected one"):
        fuse_rasters(ImageFuser(Brighter()), ms_path, ms_path, out)
    assert not out.exists()
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImportError, match=r"need rasterio: pip install mamba_vision\[remote\]"):
        fuse_rasters(model, ms_path, pan_path, out)


def volume(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), path)
    return path


@pytest.mark.parametrize(("plane", "axis"), [("axial", 0), ("coronal", 2), ("sagittal", 1)])
def test_volumes(tmp_path: Path, plane: str, axis: int) -> None:
    """Slices are found in a scan whose axes are stored in another order; windows and affine hold."""
    affine = np.array([[0, -2, 0, 10], [0, 0, 3, -20], [1.5, 0, 0, 5], [0, 0, 0, 1.0]])  # stored: S, L, A
    assert slice_axis(affine, plane) == axis
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-100, 300, (9, 17, 21)) for _ in range(2)]
    one, two = (volume(tmp_path / f"{k}.nii.gz", array, affine) for k, array in enumerate(arrays))
    steps = []
    options = FuseOptions(plane=plane, windows=((0.0, 200.0), (-100.0, 100.0)), tiling=Tiling(tile=16))
    fuse_files(ImageFuser(Brighter()).eval(), one, two, tmp_path / "out.nii.gz", options, lambda *s: steps.append(s))
    result = nib.load(tmp_path / "out.nii.gz")
    want = np.maximum(np.clip(arrays[0] / 200, 0, 1), np.clip((arrays[1] + 100) / 200, 0, 1))
    np.testing.assert_allclose(result.get_fdata(), want, atol=1e-5)
    np.testing.assert_array_equal(result.affine, affine)
    assert len(steps) == arrays[0].shape[axis] and (tmp_path / "out_before_after.png").is_file()
    assert volume_preview(one, plane).ndim == 3


def test_volume_errors(tmp_path: Path) -> None:
    model = ImageFuser(Brighter()).eval()
    one = volume(tmp_path / "one.nii.gz", np.random.rand(8, 8, 8), np.eye(4))
    other = volume(tmp_path / "other.nii.gz", np.random.rand(8, 8, 7), np.eye(4))
    moved = volume(tmp_path / "moved.nii.gz", np.random.rand(8, 8, 8), np.diag([2.0, 2, 2, 1]))
    out = tmp_path / "out.nii.gz"
    with pytest.raises(VolumeError, match=r"shape 8 x 8 x 7 instead of 8 x 8 x 8.*Register and resample"):
        fuse_volumes(model, one, other, out)
    with pytest.raises(VolumeError, match="spacing"):
        fuse_volumes(model, one, moved, out)
    with pytest.raises(ValueError, match="plane: expected one of"):
        fuse_volumes(model, one, one, out, "oblique")
    with pytest.raises(ValueError, match="window: expected rising values"):
        fuse_volumes(model, one, one, out, windows=((1.0, 0.0), None))
    with pytest.raises(ValueError, match="volumes need a model that fuses gray images, found ImageSharpener"):
        fuse_volumes(ImageSharpener(Shaded()), one, one, out)
    fuse_volumes(model, volume(tmp_path / "flat.nii.gz", np.ones((8, 8, 8)), np.eye(4)), one, out)


def test_pairs(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.nii.gz", "b/1.jpg", "b/2.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    pairs = collect_pairs(tmp_path / "a", tmp_path / "b", tmp_path / "out", ".webp")
    assert [pair.target.name for pair in pairs] == ["1.webp", "2.nii.gz"] and pairs[0].second.name == "1.jpg"
    one = collect_pairs(tmp_path / "a/1.png", tmp_path / "b/1.jpg", tmp_path / "x.png")
    assert one[0].target == tmp_path / "x.png"
    with pytest.raises(ValueError, match="expected a folder for the results"):
        collect_pairs(tmp_path / "a", tmp_path / "b", tmp_path / "x.png")


def test_published_weights_are_recognized() -> None:
    with torch.device("meta"):
        for network, variant in ((FusionMamba, "wv3"), (FusionMamba, "cave"), (MambaDFuse, "vif")):
            model = network(variant)
            own = model.state_dict()
            state = {theirs: own[ours] for ours, theirs in published_names(model).items()}
            one, found = recognize(PUBLISHED, state)
            assert (one.network, found) == (network.__name__, variant)
            model = one.model(found)
            assert getattr(model, "peak", 2047) == (1.0 if variant == "cave" else 2047)
        state = FusionMamba("qb").state_dict()
    with pytest.raises(CheckpointError, match="may be gf2 or qb: give arch, such as FusionMamba:gf2"):
        recognize(PUBLISHED, state)


def test_three_lines_of_python(tmp_path: Path, weights: Path) -> None:
    for name in ("ir", "vi"):
        write_picture(tmp_path / f"{name}.png", picture(channels=1))
    from mamba_vision.apis import fuse_files, init_fuser

    model = init_fuser(checkpoint=weights, arch="MambaDFuse:tiny", device="cpu")
    fuse_files(model, tmp_path / "ir.png", tmp_path / "vi.png", tmp_path / "fused.png")
    assert read_picture(tmp_path / "fused.png").is_gray and (tmp_path / "fused_before_after.png").is_file()
    with pytest.raises(FileNotFoundError, match=r"no\.png: no such file"):
        fuse_files(model, tmp_path / "no.png", tmp_path / "vi.png", tmp_path / "fused.png")


def test_a_model_for_something_else(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "restorer.py").write_text(
        "default_scope = 'mamba_vision'\n"
        "model = dict(type='ImageRestorer', network=dict(type='MambaIR', arch='tiny'))\n"
    )
    with pytest.raises(ValueError, match="expected an ImageFuser or ImageSharpener, found ImageRestorer"):
        init_fuser(tmp_path / "restorer.py", weights)
