"""Training options of classifiers and segmentors on tiny data: each takes its step, and does what it says."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from PIL import Image

from mamba_vision.apis.image_model import build_from_config
from mamba_vision.apis.training import train
from mamba_vision.engine import TrainingInterrupted
from mamba_vision.registry import HOOKS
from mamba_vision.utils.paths import project_folder

CONFIGS = project_folder("configs")
SMALL = {
    "vim": dict(arch="test", img_size=32, patch_size=8, in_channels=3),
    "vmamba": dict(arch="test", in_channels=3, out_indices=(3,)),
    "localvmamba": dict(arch="test", in_channels=3, out_indices=(3,)),
    "rsmamba": dict(arch="test", img_size=32, patch_size=8, in_channels=3),
}


def config(folder: Path, family: str = "vim", **changes) -> Path:
    """A configuration of one step on eight tiles of photographs, in a file, as a user would derive one."""
    base = CONFIGS / "vim" / "vim-micro_digits.py"
    classes = dict(vim="Vim", vmamba="VMamba", localvmamba="LocalVMamba", rsmamba="RSMamba")
    backbone = dict(type=f"mamba_vision.{classes[family]}", **SMALL[family])
    width = 128 if family.endswith("vmamba") else 32
    loader = dict(
        batch_size=8,
        num_workers=0,
        dataset=dict(
            type="mamba_vision.SmallPictures", name="photos", split="train", size=32, indices=16,
            pipeline=[dict(type="PackInputs")],
        ),
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
    )  # fmt: skip
    cfg = Config.fromfile(base)
    cfg.model.backbone = backbone
    cfg.model.neck = dict(type="GlobalAveragePooling") if family.endswith("vmamba") else None
    cfg.model.head.update(in_channels=width, num_classes=2)
    cfg.data_preprocessor = dict(num_classes=2, mean=[120] * 3, std=[60] * 3, to_rgb=True)
    cfg.train_dataloader = cfg.val_dataloader = cfg.test_dataloader = loader
    cfg.train_cfg = dict(type="mamba_vision.ResumableEpochLoop", max_epochs=1, val_interval=1)
    cfg.param_scheduler = []
    cfg.custom_hooks = []
    cfg.merge_from_dict(changes)
    file = folder / "config.py"
    cfg.dump(file)
    return file


@HOOKS.register_module()
class SignalForTest(Hook):
    """SIGTERM comes within the first iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        signal.raise_signal(signal.SIGTERM)


def steps(runner) -> dict[str, torch.Tensor]:
    """The parameters after both steps, which had finite losses."""
    assert runner.iter == 2
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert np.isfinite(losses).all()
    return {name: value.detach() for name, value in runner.model.named_parameters()}


@pytest.mark.parametrize("family", SMALL)
def test_one_epoch_with_validation(family, tmp_path):
    runner = train(config(tmp_path, family), work_dir=tmp_path / "run")
    assert "val/accuracy/top1" in runner.message_hub.log_scalars
    trained = steps(runner)
    fresh = build_from_config(Config.fromfile(tmp_path / "config.py"))
    assert set(trained) == {name for name, _ in fresh.named_parameters()}
    assert (tmp_path / "run" / "epoch_1.pth").is_file()


@pytest.mark.parametrize("family", ["vim"])
def test_activation_checkpointing(family, tmp_path):
    """The same steps, from the same start, with blocks recomputed (the other backbones: see their own tests)."""
    found = []
    for recompute in (False, True):
        (tmp_path / str(recompute)).mkdir()
        file = config(tmp_path / str(recompute), family, **{"model.backbone.with_cp": recompute, "randomness.seed": 1})
        runner = train(file, work_dir=tmp_path / str(recompute) / "run", validate=False)
        found.append(steps(runner))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_moving_average(tmp_path):
    hook = [dict(type="EMAHook", momentum=0.25, priority="ABOVE_NORMAL")]
    runner = train(config(tmp_path, custom_hooks=hook), work_dir=tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "epoch_1.pth", weights_only=False)
    averaged, last = saved["state_dict"], saved["ema_state_dict"]  # MMEngine saves the average as the weights
    key = "backbone.layers.0.mixer.in_proj.weight"
    assert not torch.equal(averaged[key], last[f"module.{key}"])
    torch.testing.assert_close(last[f"module.{key}"], runner.model.state_dict()[key])


def test_a_recipe_without_hooks_of_its_own_is_saved_when_it_is_stopped(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    stop = [dict(type="mamba_vision.SignalForTest")]
    file = config(tmp_path, custom_hooks=stop, **{"train_cfg.type": "EpochBasedTrainLoop"})
    with pytest.raises(TrainingInterrupted, match=r"interrupted\.pth"):
        train(file, work_dir=tmp_path / "run", validate=False)
    assert signal.getsignal(signal.SIGTERM) is before
    runner = train(file, work_dir=tmp_path / "run", validate=False, resume="auto", cfg_options={"custom_hooks": []})
    assert runner.epoch == 1 and (tmp_path / "run" / "epoch_1.pth").is_file()


def test_mixed_precision(tmp_path):
    runner = train(config(tmp_path, "vmamba"), work_dir=tmp_path / "run", amp=True, validate=False)
    assert type(runner.optim_wrapper).__name__ == "CpuAmpOptimWrapper"
    assert {value.dtype for value in steps(runner).values()} == {torch.float32}


def test_mixing_pictures(tmp_path):
    augments = [dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]
    file = config(
        tmp_path,
        **{
            "model.train_cfg": dict(augments=augments),
            "model.head.loss": dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        },
    )
    runner = train(file, work_dir=tmp_path / "run")
    assert runner.model.data_preprocessor.batch_augments is not None
    steps(runner)


def test_augmenting_pictures(tmp_path):
    """The published ImageNet pipeline on arrays, RandAugment and erasing in it."""
    published = Config.fromfile(CONFIGS / "vim" / "vim-tiny_8xb128_in1k.py").train_dataloader.dataset.pipeline
    pipeline = [dict(step) for step in published if step.type != "LoadImageFromFile"]
    pipeline[0]["scale"] = 32
    assert "RandAugment" in [step["type"] for step in pipeline]
    file = config(tmp_path, **{"train_dataloader.dataset.pipeline": pipeline})
    steps(train(file, work_dir=tmp_path / "run", validate=False))


@pytest.mark.parametrize("family", SMALL)
def test_layer_decay(family, tmp_path):
    wrapper = {
        "optim_wrapper.constructor": "LearningRateDecayOptimWrapperConstructor",
        "optim_wrapper.paramwise_cfg": dict(layer_decay_rate=0.5, flat_decay_mult=0.0),
    }
    cfg = Config.fromfile(config(tmp_path, family, **wrapper))
    model = build_from_config(cfg)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {name: group["lr"] / cfg.optim_wrapper.optimizer.lr for name, group in groups(model, optimizer).items()}
    depths = sorted({round(-np.log2(rate)) for rate in rates.values()})
    blocks = 5 if family.endswith("vmamba") else model.backbone.num_layers
    assert depths == list(range(blocks + 2))
    lowest = [rate for name, rate in rates.items() if name.startswith("backbone.patch_embed")]
    assert rates["head.fc.weight"] == 1 and set(lowest) == {min(rates.values())}


def groups(model, wrapper) -> dict[str, dict]:
    names = {id(value): name for name, value in model.named_parameters()}
    return {names[id(value)]: group for group in wrapper.optimizer.param_groups for value in group["params"]}


def test_state_space_parameters_without_decay(tmp_path):
    """Published recipes decay A_log with the rest (see tests/configs); the constructor that does not is a line away."""
    constructor = {"optim_wrapper.constructor": "mamba_vision.MambaOptimWrapperConstructor"}
    runner = train(config(tmp_path, **constructor), work_dir=tmp_path / "run", validate=False)
    found = groups(runner.model, runner.optim_wrapper)
    logs = [name for name in found if "A_log" in name or "A_b_log" in name]
    assert logs and all(found[name]["weight_decay"] == 0 for name in logs if name.endswith("A_log"))
    assert found["backbone.layers.0.mixer.in_proj.weight"]["weight_decay"] == 0.04


# ---- segmentation --------------------------------------------------------------------------------------------------
@pytest.fixture
def street(tmp_path) -> Path:
    """Two pictures with masks of three classes."""
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(2):
        picture = np.random.randint(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "data" / "images" / f"{number}.png")
        Image.fromarray((picture[..., 0] % 3).astype(np.uint8)).save(tmp_path / "data" / "masks" / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("options", ["plain", "everything"])
def test_segmentor(options, street, tmp_path):
    cfg = Config.fromfile(CONFIGS / "vmamba" / "vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py")
    cfg.model.backbone.update(arch="test", init_cfg=None, with_cp=options == "everything")
    cfg.model.data_preprocessor.size = (32, 32)
    cfg.model.decode_head.update(in_channels=[16, 32, 64, 128], channels=8, num_classes=3)
    cfg.model.auxiliary_head.update(in_channels=64, channels=8, num_classes=3)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.norm_cfg = dict(type="BN")
    load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    data = dict(type="BaseSegDataset", data_root=str(street), seg_map_suffix=".png", img_suffix=".png")
    data |= dict(data_prefix=dict(img_path="images", seg_map_path="masks"), metainfo=dict(classes=("a", "b", "c")))
    crop = [dict(type="RandomCrop", crop_size=(32, 32)), dict(type="PackSegInputs")]
    workers = dict(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.update(batch_size=2, dataset=dict(**data, pipeline=[*load, *crop]), **workers)
    whole = [load[0], dict(type="Resize", scale=(64, 48)), load[1], dict(type="PackSegInputs")]
    validate = dict(**data, pipeline=whole)
    cfg.val_dataloader.update(dataset=validate, **workers)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
    cfg.param_scheduler = []
    if options == "everything":
        cfg.optim_wrapper.constructor = "mamba_vision.LayerDecayOptimWrapperConstructor"
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.5
        cfg.custom_hooks = [dict(type="EMAHook", momentum=0.1)]
    cfg.default_hooks.logger.interval = 1
    cfg.dump(tmp_path / "config.py")
    runner = train(tmp_path / "config.py", work_dir=tmp_path / "run", amp=options == "everything")
    assert runner.iter == 2 and "val/mIoU" in runner.message_hub.log_scalars
    if options == "everything":
        found = groups(runner.model, runner.optim_wrapper)
        rates = {name: group["lr"] / 6e-5 for name, group in found.items()}
        assert rates["backbone.patch_embed.0.weight"] == pytest.approx(0.5**6)
        assert rates["decode_head.conv_seg.weight"] == rates["backbone.outnorm0.weight"] == 1


def test_layer_decay_needs_depths():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    cfg = dict(constructor="mamba_vision.LayerDecayOptimWrapperConstructor", optimizer=dict(type="SGD", lr=0.1),
               paramwise_cfg=dict(layer_decay_rate=0.5))  # fmt: skip
    with pytest.raises(ValueError, match="Sequential has no get_layer_depth"):
        build_optim_wrapper(model, cfg)
