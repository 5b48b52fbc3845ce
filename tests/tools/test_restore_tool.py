"""tools/restore.py as it is typed, and what it is made of: pictures of every kind, folders, failures."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mamba_vision.apis import restoration
from mamba_vision.apis.pixel_model import recognize
from mamba_vision.apis.restoration import PUBLISHED, enlarge, init_restorer, restore_picture
from mamba_vision.apis.restoration_run import collect_pictures
from mamba_vision.checkpoints import CheckpointError, published_names
from mamba_vision.models.networks import mambair, mambair_unet, mambairv2
from mamba_vision.models.networks.mambair import MambaIR
from mamba_vision.models.networks.mambairv2 import MambaIRv2
from mamba_vision.utils import project_folder
from mamba_vision.utils.picture_files import Picture, luminance, read_picture, write_picture
from mamba_vision.visualization.before_after import busiest, comparison_picture

TOOL = str(project_folder("tools") / "restore.py")


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit status, stdout and stderr, in this process."""
    monkeypatch.setattr(sys, "argv", ["restore.py", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(TOOL, run_name="__main__")
    return ended.value.code, *capsys.readouterr()


def picture(height: int = 20, width: int = 33, channels: int = 3, bits: int = 8, clear: bool = False) -> Picture:
    levels = 2**bits - 1
    color = np.random.randint(0, levels, (height, width, channels)).astype(np.float32) / levels
    return Picture(
        color, np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width) if clear else None, bits
    )


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Published weights of a tiny x2 network that adds nothing to what its head makes."""
    model = MambaIR("tiny")
    state = {theirs: model.state_dict()[ours] for ours, theirs in published_names(model).items()}
    torch.save({"params": state}, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def test_a_folder_with_a_corrupt_picture(tmp_path, monkeypatch, capsys, weights: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    write_picture(folder / "deep.tif", picture(bits=16))
    write_picture(folder / "gray.png", picture(channels=1))
    write_picture(folder / "clear.png", picture(clear=True))
    write_picture(folder / "same.png", picture())
    write_picture(folder / "same.jpg", picture())
    (folder / "broken.png").write_bytes((folder / "same.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a picture")
    options = ("--checkpoint", weights, "--arch", "MambaIR:tiny", "--out", out, "--tile", 16, "--device", "cpu")
    status, said, errors = run(monkeypatch, capsys, folder, *options)
    assert errors.startswith(f"failed: {folder / 'broken.png'}: the image is damaged") and errors.count("broken") == 1
    assert status == 1 and "5 of 6 restored" in said and "MambaIR tiny, x2, on cpu" in said
    assert "broken.png: failed:" in said and "damaged" in said and "33 x 20 to 66 x 40" in said
    results = {file.name for file in out.iterdir() if "before_after" not in file.name}
    assert results == {"finished.jsonl", "deep.png", "gray.png", "clear.png", "same_png.png", "same_jpg.png"}
    assert (out / "deep_before_after.png").is_file()
    deep, gray, clear = (read_picture(out / f"{name}.png") for name in ("deep", "gray", "clear"))
    assert deep.bits == 16 and gray.is_gray and gray.bits == 8 and clear.alpha is not None
    np.testing.assert_allclose(clear.alpha, enlarge(picture(clear=True).alpha[..., None], 2)[..., 0], atol=0.01)
    before = (out / "gray.png").stat().st_mtime_ns
    for resumes in ("--skip-existing", "--resume"):
        status, said, _ = run(monkeypatch, capsys, folder / "gray.png", *options, resumes)
        assert status == 0 and "is there" in said and (out / "gray.png").stat().st_mtime_ns == before
    status, said, _ = run(monkeypatch, capsys, folder / "gray.png", *options, "--resume", "--amp")
    assert status == 0 and "is there" not in said and (out / "gray.png").stat().st_mtime_ns > before


def test_jpeg_results_and_what_they_cannot_hold(tmp_path, monkeypatch, capsys, weights: Path) -> None:
    write_picture(tmp_path / "a.tif", picture(bits=16))
    write_picture(tmp_path / "b.png", picture(clear=True))
    options = ("--checkpoint", weights, "--arch", "MambaIR:tiny", "--out", tmp_path / "out", "--format", "jpg",
               "--no-preview", "--tile", 0, "--amp", "--device", "cpu")  # fmt: skip
    status, said, _ = run(monkeypatch, capsys, tmp_path / "a.tif", tmp_path / "b.png", *options)
    assert status == 1 and "transparency needs" in said
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.jpg", "finished.jsonl"}


def test_a_trained_folder(tmp_path, monkeypatch, capsys) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.py").write_text(
        "default_scope = 'mamba_vision'\n"
        "model = dict(type='ImageRestorer', network=dict(type='MambaIRv2', arch='tiny'), tiling=dict(tile=32))\n"
    )
    state = {f"network.{name}": value for name, value in MambaIRv2("tiny").state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, work / "best_psnr.pth")
    write_picture(tmp_path / "a.png", picture())
    out = tmp_path / "out"
    status, said, _ = run(monkeypatch, capsys, tmp_path / "a.png", "--config", work, "--out", out, "--device", "cpu")
    assert status == 0 and "1 of 1 restored" in said
    assert read_picture(out / "a.png").color.shape == (40, 66, 3)


def test_usage_errors(tmp_path, monkeypatch, capsys, weights: Path) -> None:
    write_picture(tmp_path / "a.png", picture())
    for arguments, status, match in (
        ([tmp_path / "a.png"], 2, "no model"),
        ([tmp_path / "a.png", "--checkpoint", weights, "--tile", 3], 2, "--tile: expected 0 or at least 16"),
        ([tmp_path / "a.png", "--checkpoint", weights], 2, "none of the published variants"),
        ([tmp_path / "a.png", "--checkpoint", weights, "--arch", "MambaIR:sr_x2"], 2, "does not fit MambaIR"),
        ([tmp_path / "a.png", "--checkpoint", weights, "--arch", "SwinIR"], 2, "expected NETWORK:VARIANT of"),
        ([tmp_path / "b.png", "--checkpoint", weights], 2, "no such file or folder"),
        ([tmp_path / "a.png", "--checkpoint", tmp_path / "none.pth"], 2, "none.pth"),
        ([tmp_path / "a.png", "--config", tmp_path / "none"], 2, "no such configuration"),
    ):
        found, out, err = run(monkeypatch, capsys, *arguments, "--out", tmp_path / "out")
        assert found == status and match in out + err, (arguments, out, err)


def test_published_weights_are_recognized() -> None:
    with torch.device("meta"):
        for network, module in (("MambaIR", mambair), ("MambaIRUNet", mambair_unet), ("MambaIRv2", mambairv2)):
            for variant in ("lightsr_x3", "realdn", "light_x2", "denoise_color"):
                if variant in module.PARAMETERS:
                    model = getattr(module, network)(variant)
                    own = model.state_dict()
                    state = {theirs: own[ours] for ours, theirs in published_names(model).items()}
                    one, found = recognize(PUBLISHED, state)
                    assert (one.network, found) == (network, variant)
    with pytest.raises(CheckpointError, match="unknown network: the first name is 'conv"):
        recognize(PUBLISHED, {"conv.weight": torch.zeros(1)})


def test_gray_networks_keep_colors(weights: Path) -> None:
    """A network for luminance that does nothing leaves a color picture as it is."""
    model = init_restorer(checkpoint=weights, arch="MambaIR:tiny", device="cpu")
    model.network = MambaIR("tiny_denoise", in_channels=1).eval()
    torch.nn.init.zeros_(model.network.head.conv_last.weight)
    torch.nn.init.constant_(model.network.head.conv_last.bias, 0.1)
    given = Picture(picture().color * 0.5 + 0.2)
    restored = restore_picture(model, given)
    np.testing.assert_allclose(restored.color, given.color + 0.1, atol=1e-5)
    assert restore_picture(model, picture(channels=1)).is_gray
    np.testing.assert_allclose(luminance(restored.color) - luminance(given.color), 0.1, atol=1e-5)
    model.network.in_channels = 4
    with pytest.raises(ValueError, match="takes 4 channels"):
        restore_picture(model, given)


def test_collecting(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/sub/b.jpg", "in/restored/c.png"):
        write_picture(tmp_path / name, picture())
    found = collect_pictures([tmp_path / "in"], recursive=True, out=tmp_path / "in/restored")
    assert [str(target) for target in found.values()] == ["a", "sub/b"]
    for name in ("other/a.png", "other/a.jpg"):
        write_picture(tmp_path / name, picture())
    (tmp_path / "other" / "._a.png").write_bytes(b"what another system leaves beside")
    both = collect_pictures([tmp_path / "in", tmp_path / "other", tmp_path / "in/sub/b.jpg"])
    assert [str(target) for target in both.values()] == ["a_png", "a_jpg", "a_png_2", "b"]
    same = collect_pictures([tmp_path / "in/a.png", tmp_path / "other/a.png"])
    assert [str(target) for target in same.values()] == ["a", "a_2"], "one result must not overwrite another"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images"):
        collect_pictures([tmp_path / "empty"])


def test_before_after_shows_the_busiest_spot() -> None:
    after = np.full((60, 80, 3), 0.5, np.float32)
    after[40:50, 60:70] = np.random.rand(10, 10, 3)
    top, left, side = busiest(after, 20)
    assert top <= 40 < top + side and left <= 60 < left + side
    drawn = comparison_picture({"small": after[::2, ::2], "gray": after[..., :1], "large": after}, zoom_side=20)
    assert drawn.size == (3 * 240 + 2 * 8, 22 + 180 + 8 + 240)


def test_python_api_is_lazy() -> None:
    import mamba_vision.apis

    assert mamba_vision.apis.restore_picture is restoration.restore_picture
