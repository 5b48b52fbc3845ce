"""`list_models` and `get_model`: names from the tables of variants, classifiers, pyramids, networks, weights."""

import subprocess
import sys

import pytest
import torch

import mamba_vision
from mamba_vision.apis.model_names import find_variant, variants
from mamba_vision.checkpoints import CheckpointError
from mamba_vision.models.backbones import local_vim, local_vmamba, rsmamba, vim, vmamba

SMALL = ["vim_test", "vmamba_test", "vmamba_test_vanilla", "localvim_test", "localvmamba_test", "rsmamba_test"]
IMAGE = torch.randn(1, 3, 64, 84)


def test_importing_is_cheap():
    code = (
        "import sys, mamba_vision as mv; mv.__version__, mv.__all__; "
        "print([m for m in ('torch', 'numpy', 'mmengine') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_names_cover_every_variant():
    names = mamba_vision.list_models()
    assert names == sorted(set(names)) and len(names) > 100
    for module, family in ((vim, "vim"), (vmamba, "vmamba"), (local_vim, "localvim"), (local_vmamba, "localvmamba")):
        assert {f"{family}_{arch.replace('+', '_plus')}" for arch in module.ARCHS} <= set(names)
    expected = {"vim_tiny", "vim_tiny_plus", "vmamba_tiny", "vmamba_tiny_s1l8", "localvim_tiny", "rsmamba_base"}
    expected |= {"umamba_bot", "umamba_enc", "umamba_enc_abdomen_ct", "segmamba_brats2023", "zigma_b_2"}
    assert expected <= set(names)
    bare = [name.replace("_", "") for name in names]
    assert len(set(bare)) == len(bare)  # so that spelling may be loose


def test_patterns():
    assert set(mamba_vision.list_models("*vmamba*")) > set(mamba_vision.list_models("vmamba_*"))
    assert mamba_vision.list_models("vim_tiny*") == ["vim_tiny", "vim_tiny_plus"]
    assert mamba_vision.list_models("resnet*") == []
    with pytest.raises(ValueError, match="pattern: found None"):
        mamba_vision.list_models(None)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vim_tiny", vim.PARAMETERS["tiny"]),
        ("vim_small_plus", vim.PARAMETERS["small+"]),
        ("vmamba_tiny_s1l8", vmamba.PARAMETERS["tiny_s1l8"]),
        ("vmamba_vanilla_base", vmamba.PARAMETERS["vanilla_base"]),
        ("localvim_small", local_vim.PARAMETERS["small"]),
        ("localvmamba_tiny", local_vmamba.PARAMETERS["tiny"]),
        ("rsmamba_base", rsmamba.PARAMETERS["base"] + 193 * 1000),
    ],
)
def test_a_name_is_the_published_classifier(name, count):
    with torch.device("meta"):
        model = mamba_vision.get_model(name)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("name", SMALL)
def test_backbones_say_what_they_expect(name):
    layers = mamba_vision.get_model(name).backbone
    count = len(layers.layers)
    for options, message in (
        ({"drop_path_rate": 1.2}, "drop_path_rate: found 1.2, expected at least 0 and less than 1"),
        ({"frozen_stages": 99}, f"frozen_stages: found 99, expected -1 .nothing. .. {count} "),
        ({"in_chans": "3"}, "in_chans: found '3', expected a whole number of at least 1"),
        ({"num_classes": -1}, "num_classes: found -1, expected a whole number of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            mamba_vision.get_model(name, **options)
    for shape in ((1, 1, 64, 64), (3, 64, 64), (1, 3, 0, 64)):
        with pytest.raises(ValueError, match=r"x: found shape .*, expected \(batch, 3, height, width\)"):
            layers(torch.rand(shape))


@pytest.mark.parametrize("name", SMALL)
def test_classifier(name):
    model = mamba_vision.get_model(name, num_classes=5, in_chans=4).eval()
    assert model(torch.randn(2, 4, 52, 84)).shape == (2, 5)
    features = mamba_vision.get_model(name, num_classes=0).eval()(IMAGE)
    assert features.shape == (1, model.backbone.embed_dims)


@pytest.mark.parametrize("name", SMALL)
def test_pyramid(name):
    model = mamba_vision.get_model(name, features_only=True).eval()
    maps = model(IMAGE)
    assert model.strides == (4, 8, 16, 32)
    assert [m.shape[1] for m in maps] == list(model.channels)
    for level, stride in zip(maps, model.strides):
        assert tuple(level.shape[-2:]) == (-(-64 // stride), -(-84 // stride))


def test_pyramid_options():
    model = mamba_vision.get_model("vmamba_test", features_only=True, out_indices=(1, 3))
    assert model.strides == (8, 32) and model.channels == (32, 128) and len(model(IMAGE)) == 2
    learned = mamba_vision.get_model("vim_test", features_only=True, pyramid=True)
    assert learned.strides == (4, 8, 16, 32) and learned.eval()(IMAGE)[0].shape[-2:] == (16, 20)
    assert len(mamba_vision.get_model("vim_test", features_only=True, out_indices=-1)(IMAGE)) == 4


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("scan", ["hilbert", ["cross", "zigzag"]])
def test_any_scan_order(name, scan):
    if isinstance(scan, list):
        scan = [dict(type="cross"), dict(type="zigzag", schemes=[0, 3])]
    model = mamba_vision.get_model(name, num_classes=2, scan=scan).eval()
    assert model(IMAGE).shape == (1, 2)


def test_networks():
    model = mamba_vision.get_model("umamba_bot_tiny_2d", in_chans=2, num_classes=4).eval()
    assert model.placement == "bot" and model(torch.randn(1, 2, 32, 32))[0].shape == (1, 4, 32, 32)
    assert mamba_vision.get_model("umamba_enc_tiny").placement == "enc"
    with torch.device("meta"):
        assert mamba_vision.get_model("umamba_bot", num_classes=3).num_classes == 3


def test_spelling():
    assert find_variant("Vim-Tiny+") is variants()["vim_tiny_plus"]
    assert find_variant("local_vim_tiny") is variants()["localvim_tiny"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="vim_tniy"), "'vim_tniy' is not known; nearest: vim_tiny"),
        (dict(name="vmamba"), "nearest: vmamba_base"),
        (dict(name="resnet50"), "list_models"),
        (dict(name="vim_test", droppath=0.1), "droppath: found 0.1, but vim_test has no such option; it has arch"),
        (dict(name="umamba_bot_tiny", scan="cross"), "scan: found 'cross', but umamba_bot_tiny has no such option"),
        (dict(name="umamba_bot_tiny", features_only=True), "features_only: umamba_bot_tiny is a whole network"),
        (dict(name="vim_test", features_only=True, num_classes=3), "num_classes: found 3 with features_only"),
        (dict(name="vim_test", features_only=True, out_type="raw"), "out_type: found 'raw'"),
        (dict(name="vim_test", pretrained=True), "pretrained: found True, expected a file"),
        (dict(name="vim_test", in_chans=0), "in_chans: found 0"),
        (dict(name="vim_test", out_type="featmap"), "out_type: found 'featmap' for a classifier"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        mamba_vision.get_model(**arguments)


# ---- weights -------------------------------------------------------------------------------------------------------
@pytest.fixture(params=["vim_test", "vmamba_test", "localvim_test", "localvmamba_test", "rsmamba_test"])
def trained(request, tmp_path):
    """(name, classifier of 7 classes, its file as a runner saves it)."""
    model = mamba_vision.get_model(request.param, num_classes=7).eval()
    file = tmp_path / "epoch_1.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, file)
    return request.param, model, file


def test_own_file(trained):
    name, model, file = trained
    kept = mamba_vision.get_model(name, file).eval()
    torch.testing.assert_close(kept(IMAGE), model(IMAGE))
    assert kept.head.num_classes == 7
    pooled = mamba_vision.get_model(name, file, num_classes=0).eval()
    torch.testing.assert_close(pooled(IMAGE), model.extract_feat(IMAGE)[-1])
    with pytest.warns(UserWarning, match="starts anew, for 3 classes: the file has 7"):
        tuned = mamba_vision.get_model(name, file, num_classes=3).eval()
    torch.testing.assert_close(tuned.extract_feat(IMAGE), model.extract_feat(IMAGE))


def test_features_of_own_file(trained):
    name, model, file = trained
    pyramid = mamba_vision.get_model(name, file, features_only=True)
    own, theirs = pyramid.backbone.state_dict(), model.backbone.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in own.items() if not key.startswith("outnorm"))


@pytest.mark.parametrize("channels", [1, 6])
def test_other_channels(trained, channels):
    name, model, file = trained
    other = mamba_vision.get_model(name, file, in_chans=channels).eval()
    grey = torch.randn(1, 1, 64, 84)
    torch.testing.assert_close(other(grey.expand(-1, channels, -1, -1)), model(grey.expand(-1, 3, -1, -1)))


def test_four_channels(tmp_path):
    model = mamba_vision.get_model("vim_test", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    other = mamba_vision.get_model("vim_test", tmp_path / "weights.pth", in_chans=4, num_classes=7)
    three, four = (m.backbone.patch_embed.proj.weight for m in (model, other))
    torch.testing.assert_close(four[:, :3], three * 0.75)
    torch.testing.assert_close(four[:, 3], three[:, 0] * 0.75)
    torch.save(other.state_dict(), tmp_path / "four.pth")  # a file of four channels fits as it is
    again = mamba_vision.get_model("vim_test", tmp_path / "four.pth", in_chans=4)
    torch.testing.assert_close(again.backbone.patch_embed.proj.weight, four)


def test_published_file(tmp_path):
    """Published names: no prefix, a bare head."""
    model = mamba_vision.get_model("vmamba_test", num_classes=7).eval()
    state = {
        key.removeprefix("backbone.")
        .replace("outnorm3", "classifier.norm")
        .replace("head.fc", "classifier.head"): value
        for key, value in model.state_dict().items()
    }
    torch.save({"model": state}, tmp_path / "published.pth")
    loaded = mamba_vision.get_model("vmamba_test", tmp_path / "published.pth").eval()
    torch.testing.assert_close(loaded(IMAGE), model(IMAGE))
    mamba_vision.get_model("vmamba_test", tmp_path / "published.pth", features_only=True, in_chans=4)


@pytest.mark.parametrize("name", ["vim_test", "localvim_test"])
def test_weights_of_one_norm_start_the_other(name, tmp_path):
    """LocalVim's published dense models have LayerNorms that a classifier's RMSNorms start; biases begin at 0."""
    file = mamba_vision.get_model(name, num_classes=7).state_dict()
    torch.save(file, tmp_path / "rms.pth")
    dense = mamba_vision.get_model(name, tmp_path / "rms.pth", features_only=True, norm="ln").backbone
    assert torch.equal(dense.layers[1].norm.weight, file["backbone.layers.1.norm.weight"])
    assert not dense.layers[1].norm.bias.any()
    state = {**mamba_vision.get_model(name, num_classes=7, norm="ln").state_dict()}
    state.pop("backbone.layers.1.norm.bias")  # one of them missing is damage
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(CheckpointError, match=r"missing \(1\)"):
        mamba_vision.get_model(name, tmp_path / "damaged.pth", norm="ln")


def test_average_of_a_published_diffusion_file(tmp_path):
    """ZigMa's files hold two sets of weights; the moving average is what its authors sample with."""
    state = mamba_vision.get_model("zigma_tiny").state_dict()
    average = {f"module.{key}": value + 1 for key, value in state.items()}
    torch.save({"model": state, "ema": average, "train_steps": 3}, tmp_path / "zigma.pt")
    loaded = mamba_vision.get_model("zigma_tiny", tmp_path / "zigma.pt").state_dict()
    assert all(torch.equal(value, state[key] + 1) for key, value in loaded.items())


def test_files_that_do_not_fit(trained, tmp_path):
    name, model, _ = trained
    state = model.state_dict()
    state.pop(next(key for key in state if key.endswith("A_log") or "A_log" in key))
    torch.save(state, tmp_path / "short.pth")
    for channels in (3, 4):
        with pytest.raises(CheckpointError, match=r"missing \(1\)"):
            mamba_vision.get_model(name, tmp_path / "short.pth", in_chans=channels)
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        mamba_vision.get_model(name, tmp_path / "none.pth")
