"""Restoration's configurations: everything in them builds, nothing is misspelt, the metafile tells the truth."""

import pytest
import yaml
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.training import train
from mamba_vision.datasets.restoration import LAYOUTS
from mamba_vision.models.networks import mambair, mambair_unet, mambairv2
from mamba_vision.registry import METRICS, TRANSFORMS
from mamba_vision.utils import project_folder

NETWORKS = {"MambaIR": mambair, "MambaIRUNet": mambair_unet, "MambaIRv2": mambairv2}
FOLDER = project_folder("configs") / "mambair"
FILES = sorted(FOLDER.glob("*.py"))
META = yaml.safe_load((FOLDER / "metafile.yml").read_text())
PARAMETERS = {model["Config"].rpartition("/")[2]: model["Metadata"]["Parameters"] for model in META["Models"]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_builds(file) -> None:
    cfg = load_config(file)
    check_config(cfg)
    module, network = NETWORKS[cfg.model.network.type], cfg.model.network
    settings = module.ARCHS[network.arch]
    scale, channels = settings.get("upscale", 1), settings.get("in_channels", 3)
    assert PARAMETERS[file.name] == module.PARAMETERS.get(network.arch, PARAMETERS[file.name])
    # The networks themselves are built elsewhere: here a small one of the same kind stands in.
    network.update(arch="tiny", **({} if network.type == "MambaIRUNet" else dict(upscale=scale, in_channels=channels)))
    network.update({} if scale > 1 or network.type == "MambaIRUNet" else dict(upsampler="none"))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        assert model.scale == scale and model.network.in_channels == channels
        build_optim_wrapper(model, cfg.optim_wrapper)
        metric = METRICS.build(dict(cfg.val_evaluator))
        data = [loader.dataset for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)]
        for one in data:
            steps = [TRANSFORMS.build(dict(step)) for step in one.pipeline]
            assert steps[0].channels == channels
            assert (one.get("scale", 1) if steps[0].scale is None else steps[0].scale) == scale
            layouts = one.get("layout", "set5")
            assert set([layouts] if isinstance(layouts, str) else layouts) <= set(LAYOUTS)
    if "df2k" in file.stem:
        assert metric.border == scale and metric.y_channel
        gpus, batch = map(int, file.stem.split("_")[1].split("-")[0].split("xb"))
        assert cfg.train_dataloader.batch_size == batch and gpus == 8
    if "_8xb" in file.stem:
        assert f"-{cfg.train_cfg.max_iters // 1000}k" in file.stem
    if "denoise" in file.stem and "_8xb" in file.stem:
        sigma = int(file.stem.split("-s")[1].split("_")[0])
        assert [step.sigma for one in data for step in one.pipeline if "sigma" in step] == [sigma] * 3
    if "jpeg" in file.stem:
        quality = int(file.stem.split("-q")[1].split("_")[0])
        assert [one.quality for one in data] == [quality] * 3


@pytest.mark.parametrize("arch", ["tiny", "tiny_denoise"])
def test_small_networks_of_the_metafile(arch: str) -> None:
    file = {"tiny": "mambair-tiny-x2_photographs.py", "tiny_denoise": "mambair-tiny-denoise_photographs.py"}[arch]
    network = MODELS.build({**load_config(FOLDER / file).model.network, "_scope_": "mamba_vision"})
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[file]


def test_metafile_lists_every_configuration() -> None:
    names = [model["Name"] for model in META["Models"]]
    assert sorted(names) == [file.stem for file in FILES] and set(PARAMETERS) == {file.name for file in FILES}
    readme = (FOLDER / "README.md").read_text()
    assert all(name in readme for name in names)
    for model in META["Models"]:
        for result in model.get("Results", ()):
            assert 25 < result["Metrics"]["PSNR"] < 45 and 0.7 < result["Metrics"].get("SSIM", 0.9) < 1


@pytest.mark.parametrize("task", ["x2", "denoise"])
def test_a_few_iterations_on_photographs(task: str, tmp_path) -> None:
    options = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "train_dataloader.batch_size": 2,
               "default_hooks.checkpoint.interval": 2}  # fmt: skip
    file = FOLDER / f"mambair-tiny-{task}_photographs.py"
    runner = train(file, work_dir=tmp_path, cfg_options={**options, "val_dataloader.dataset.tile": 160})
    assert runner.iter == 2 and (tmp_path / "iter_2.pth").is_file()
    assert float(runner.message_hub.get_scalar("val/psnr").current()) > 5
    table = (tmp_path / "comparison" / "scores.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["images", {"x2": "bicubic", "denoise": "input"}[task], "result"]
    assert list((tmp_path / "comparison").glob("*.png"))


def test_a_few_adversarial_iterations(tmp_path) -> None:
    """The second stage of real super-resolution through the runner, small, and saved and resumed."""
    (tmp_path / "small.py").write_text(
        f'_base_ = ["{FOLDER / "mambair-realsr-x4-gan_8xb4-400k_df2k.py"}"]\n'
        "model = dict(network=dict(arch='tiny', upscale=4), discriminator=dict(width=8), perceptual=None)\n"
        "train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(\n"
        "    _delete_=True, type='SamplePhotographs', repeat=9, pipeline=_base_.train_pipeline))\n"
        "val_dataloader = dict(num_workers=0, dataset=dict(\n"
        "    _delete_=True, type='SamplePhotographs', split='test', tile=160, pipeline=_base_.test_pipeline))\n"
    )
    options = {"train_cfg.max_iters": 1, "train_cfg.val_interval": 1, "default_hooks.checkpoint.interval": 1}
    train(tmp_path / "small.py", work_dir=tmp_path / "work", cfg_options=options)
    assert (tmp_path / "work" / "iter_1.pth").is_file()
    runner = train(tmp_path / "small.py", work_dir=tmp_path / "work", resume="auto",
                   cfg_options={**options, "train_cfg.max_iters": 2})  # fmt: skip
    assert runner.iter == 2 and set(runner.optim_wrapper.keys()) == {"network", "discriminator"}
