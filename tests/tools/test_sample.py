"""tools/sample.py, and tools/train.py on a generator, as a user calls them."""

import io
import runpy
import sys
import tarfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.generation import init_generator, sample_pictures
from mamba_vision.models.networks.zigma import ZigMa
from mamba_vision.registry import DATASETS, MODELS
from mamba_vision.utils import project_folder

TOOLS = project_folder("tools")
DIGITS = project_folder("configs") / "zigma" / "zigma-tiny_digits.py"
CHURCHES = DIGITS.with_name("zigma-zigzag8-b1-pe2_churches256.py")
COCO = DIGITS.with_name("zigma-zigzag8-b1-pe2_coco256.py")
TINY = dict(type="mamba_vision.ZigMa", arch="tiny", positions="learned")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Call a tool; gives its exit status and what it printed."""

    def call(tool: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOLS / tool), run_name="__main__")
        said = capsys.readouterr()
        return end.value.code, said.out + said.err

    return call


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network for digits, as published code writes it: the average is another one."""
    folder = tmp_path_factory.mktemp("digits")
    options = dict(in_channels=1, num_classes=10, null_class=True, positions="learned")
    arch = dict(embed_dims=32, num_layers=2, patch_size=2, img_size=8)
    torch.manual_seed(1)
    kept, average = ZigMa(arch, **options), ZigMa(arch, **options)
    torch.nn.init.normal_(average.blocks[0].adaLN_modulation[1].weight)
    file = folder / "digits.pt"
    torch.save({"model": kept.state_dict(), "ema": {f"module.{k}": v for k, v in average.state_dict().items()}}, file)
    return file


SMALL = ("model.network.arch.embed_dims=32", "model.network.arch.num_layers=2")


def test_grid_and_arrays(run, digits, tmp_path):
    out, arrays = tmp_path / "grid.png", tmp_path / "arrays.npy"
    shared = (DIGITS, digits, "--steps", 2, "--device", "cpu", "--cfg-options", *SMALL)
    status, said = run("sample.py", *shared[:2], "--out", out, "--arrays", arrays, "--classes", 3, 7, "--num", 5,
                       "--columns", 5, "--batch-size", 2, *shared[2:])  # fmt: skip
    assert status == 0 and f"wrote {out}" in said and "5 of 5" in said
    assert Image.open(out).size == (5 * 34 + 2, 36)
    drawn = np.load(arrays)
    assert drawn.shape == (5, 1, 8, 8) and drawn.dtype == np.float32
    again = {}
    for name, *options in (("whole", "--batch-size", 5), ("seed", "--seed", 1), ("other", "--classes", 1),
                           ("last", "--weights", "last"), ("unguided", "--guidance", 1)):  # fmt: skip
        file = tmp_path / f"{name}.npy"
        given = ("--classes", 3, 7) if name != "other" else ()
        status, _ = run(
            "sample.py", *shared[:2], "--out", out, "--arrays", file, "--num", 5, *given, *options, *shared[2:]
        )
        assert status == 0
        again[name] = np.load(file)
    np.testing.assert_allclose(again.pop("whole"), drawn, rtol=1e-4, atol=1e-5)
    assert all(np.abs(found - drawn).max() > 1e-3 for found in again.values())


def test_sizes_and_solvers(run, digits, tmp_path):
    for number, options in enumerate((("--size", 4, 12), ("--method", "sde_heun"), ("--method", "dopri5"))):
        out = tmp_path / f"{number}.png"
        status, said = run("sample.py", DIGITS, digits, "--out", out, "--num", 2, "--steps", 3, *options,
                           "--cfg-options", *SMALL)  # fmt: skip
        assert status == 0 and out.is_file(), said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--classes", "12"), "error: classes: found [12], expected numbers from 0 to 9"),
        (("--text", "t.npy"), "error: text: this network knows no text condition"),
        (("--size", "7", "8"), "error: size of the picture: found (7, 8), expected multiples of patch_size 2"),
        (("--device", "cuda:9"), "error: device: 'cuda:9' cannot be used here"),
    ],
)
def test_bad_requests(run, digits, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", np.zeros((1, 2, 3)))
    status, said = run("sample.py", DIGITS, digits, "--out", "grid.png", *options, "--cfg-options", *SMALL)
    assert status == 1 and message in said and not Path("grid.png").exists()


def test_missing_and_foreign_files(run, digits, tmp_path):
    out = ("--out", tmp_path / "grid.png")
    assert "does not exist" in run("sample.py", DIGITS, tmp_path / "none.pth", *out)[1]
    assert "no such configuration" in run("sample.py", tmp_path / "none.py", digits, *out)[1]
    status, said = run("sample.py", DIGITS, digits, *out)  # the configuration's own, larger network
    assert status == 1 and "does not fit ZigMa" in said
    status, said = run("sample.py", DIGITS, digits, "--out", tmp_path / "grid.npy")
    assert status == 2 and "--out: expected a .png" in said


def test_text_is_decided_by_the_published_file(tmp_path):
    """Published configurations don't say it."""
    small = {"model.network": dict(TINY, text_channels=6), "model.network._delete_": True}
    plain, told = tmp_path / "plain.pt", tmp_path / "told.pt"
    torch.save({"ema": ZigMa("tiny", positions="learned").state_dict()}, plain)
    torch.save({"ema": ZigMa("tiny", positions="learned", text_channels=6).state_dict()}, told)
    for config in (CHURCHES, COCO):
        assert init_generator(config, plain, "cpu", cfg_options=small).network.text_channels == 0
        model = init_generator(config, told, "cpu", cfg_options=small)
        assert model.network.text_channels == 6 and model.scale == 0.18215
    with pytest.raises(ValueError, match=r"text: found none, expected features \(prompts, tokens, 6\)"):
        sample_pictures(model, 2)
    text = np.random.randn(2, 3, 6)
    (latents,) = sample_pictures(model, 2, text=text, method="euler", num_steps=3)
    assert latents.shape == (2, 4, 8, 8) and latents.std() > 1 / 0.18215 / 3
    with pytest.raises(ValueError, match=r"sampler: .*steps"):
        sample_pictures(model, 2, text=text, steps=3)


def test_training_from_the_command_line(run, tmp_path):
    """Trained, validated with pictures, the average saved, sampled from."""
    work = tmp_path / "work"
    status, said = run(
        "train.py", DIGITS, "--work-dir", work, "--cfg-options", *SMALL, "epochs=3", "train_cfg.val_interval=3",
        "train_dataloader.dataset.indices=128", "val_dataloader.dataset.indices=32", "val_dataloader.batch_size=16",
        "model.sampler.num_steps=3", "model.network.mixer.d_state=4", "default_hooks.logger.interval=2",
    )  # fmt: skip
    assert status == 0 and "Training ZigMa" in said, said
    assert "frechet_pixels" in said
    assert (work / "val" / "epoch_3.png").is_file() and (work / "progress.png").is_file()
    checkpoint = torch.load(work / "epoch_3.pth", weights_only=False)
    average = checkpoint["state_dict"]["network.norm_f.weight"]
    assert not torch.equal(average, checkpoint["ema_state_dict"]["module.network.norm_f.weight"])
    status, said = run("sample.py", DIGITS, work / "epoch_3.pth", "--out", tmp_path / "grid.png", "--steps", 2,
                       "--cfg-options", *SMALL, "model.network.mixer.d_state=4")  # fmt: skip
    assert status == 0, said


def test_pictures_in_folders_as_the_readme_says(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for number in range(2):
            red = Image.new("RGB", (40, 36), (255, 0, 0))
            red.save(tmp_path / "train" / label / f"{number}.png")
    readme = (DIGITS.parent / "README.md").read_text()
    start = readme.index("      model = dict(data_preprocessor")
    snippet = textwrap.dedent(readme[start : readme.index("- **Arrays**")])
    config = tmp_path / "mine.py"
    config.write_text(f'_base_ = "{DIGITS.with_name("zigma-tiny_photos.py")}"\n' + snippet)
    cfg = load_config(config, {"train_dataloader.dataset.data_root": str(tmp_path / "train")})
    check_config(cfg)
    with DefaultScope.overwrite_default_scope("mmengine"):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        model = MODELS.build(cfg.model)
    batch = model.data_preprocessor({key: [dataset[3][key]] for key in ("inputs", "data_samples")})
    assert batch["inputs"].shape == (1, 3, 32, 32) and batch["inputs"][0, :, 5, 5].tolist() == [1, -1, -1]
    assert int(batch["data_samples"][0].gt_label) == 1
    assert model(**batch, mode="loss")["loss"].isfinite()


def test_a_published_recipe_takes_steps_on_shards(run, tmp_path):
    """The text-conditional recipe, its network narrowed, on a shard in the published layout; and a sample of it."""
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        for number in range(6):
            for key, shape in (("img_feature256.npy", (4, 8, 8)), ("caption_feature.npy", (2, 3, 6))):
                data = io.BytesIO()
                np.save(data, np.random.randn(*shape).astype(np.float32))
                member = tarfile.TarInfo(f"{number:06}.{key}")
                member.size = data.tell()
                data.seek(0)
                tar.addfile(member, data)
    narrow = ("model.network.arch=tiny", "model.network.text_channels=6", "model.network.positions=learned")
    status, said = run(
        "train.py", COCO, "--work-dir", tmp_path / "work", "--no-persistent-workers", "--cfg-options", *narrow,
        f"train_dataloader.dataset.data_root={tmp_path}", "train_dataloader.batch_size=3",
        "train_dataloader.num_workers=0", "train_cfg.max_iters=2", "default_hooks.checkpoint.interval=2",
    )  # fmt: skip
    assert status == 0, said
    np.save(tmp_path / "text.npy", np.random.randn(1, 3, 6))
    status, said = run("sample.py", COCO, tmp_path / "work" / "iter_2.pth", "--text", tmp_path / "text.npy", "--num", 2,
                       "--out", tmp_path / "grid.png", "--method", "euler", "--steps", 2,
                       "--cfg-options", *narrow)  # fmt: skip
    assert status == 0 and "--vae decodes them" in said, said
