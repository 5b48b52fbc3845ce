from dataclasses import replace

import pytest
import torch
from miniature import make_plan
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_template import PRESETS, render_config
from mamba_vision.apis.preparation import check_network
from mamba_vision.registry import MODELS, TRANSFORMS


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_config_that_builds_and_moves(tmp_path, preset):
    plan = make_plan()
    text = render_config(plan, {"scans": '/data/it\'s a "scan" folder'}, tmp_path, preset=preset, seed=7)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.py").write_text(text)
        plan.save(tmp_path / folder / "plan.json")
        cfg = Config.fromfile(tmp_path / folder / "config.py")
        assert cfg.work_dir == str(tmp_path / folder)
        assert cfg.plan == str(tmp_path / folder / "plan.json")
        assert cfg.train_dataloader.dataset.root == str(tmp_path / folder / "preprocessed")
    check_config(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        MODELS.build(cfg.model)
    assert cfg.scans == '/data/it\'s a "scan" folder'
    assert cfg.classes == ["background", "ball", "core"]
    assert cfg.randomness.seed == 7
    assert cfg.train_cfg.max_epochs == PRESETS[preset].epochs
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 120
    assert "patch_size = (16, 16, 16)  # voxels; small" in text


def test_default_is_the_recipe_of_nnunet(tmp_path):
    (tmp_path / "config.py").write_text(render_config(make_plan(), {"scans": "s"}, tmp_path))
    cfg = Config.fromfile(tmp_path / "config.py")
    assert cfg.train_cfg.max_epochs * cfg.train_dataloader.batch_sampler.iterations == 250_000
    assert cfg.optim_wrapper.optimizer == {
        "type": "SGD", "lr": 0.01, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5,
    }  # fmt: skip
    assert cfg.optim_wrapper.clip_grad.max_norm == 12
    assert cfg.model.mirror_axes == ()


def test_poly_schedule_is_that_of_nnunet(tmp_path):
    import torch

    from mamba_vision.registry import PARAM_SCHEDULERS

    (tmp_path / "config.py").write_text(render_config(make_plan(), {"scans": "s"}, tmp_path))
    cfg = Config.fromfile(tmp_path / "config.py")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = PARAM_SCHEDULERS.build({**cfg.param_scheduler, "optimizer": optimizer, "type": "PolyLR"})
    for epoch in range(1000):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 - epoch / 1000) ** 0.9, rel=1e-9)
        optimizer.step()
        schedule.step()


def test_flat_patches_turn_in_their_plane_only(tmp_path):
    plan = {**make_plan().to_dict(), "patch_size": (16, 64, 64)}
    (tmp_path / "config.py").write_text(render_config(plan, {"scans": "s"}, tmp_path))
    cfg = Config.fromfile(tmp_path / "config.py")
    rotation = cfg.train_pipeline[0]
    assert "range_y" not in rotation and "range_z" not in rotation
    assert rotation.range_x == pytest.approx(3.14159265)
    assert cfg.enlarged[0] == 16
    assert cfg.enlarged[1] > 90


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({"scans": "s"}, {"preset": "slow"}, "fast"),
        ({}, {}, "'scans'"),
        ({"scans": "s", "test": "t"}, {}, "found .*test"),
    ],
)
def test_bad_arguments(tmp_path, data, options, message):
    with pytest.raises(ValueError, match=message):
        render_config(make_plan(), data, tmp_path, **options)


REGIONS = dict(
    labels={"background": 0, "a": 1, "b": 2, "c": 3}, regions={"all": [1, 2, 3], "part": [2, 3], "c": [3]},
    region_order=[1, 2, 3], ignore_label=4,
)  # fmt: skip
TWO_CHANNELS = dict(
    channels=["MR", "CT"],
    normalization=["zscore", "ct"],
    use_mask=[True, False],
    intensities=make_plan().intensities * 2,
)


@pytest.mark.parametrize("preset", ["default", "fast"])
@pytest.mark.parametrize(
    ("changes", "network"),
    [
        (REGIONS, dict(num_classes=3)),
        (TWO_CHANNELS, dict(in_channels=2)),
        (dict(configuration="2d", patch_size=(1, 24, 16)), dict(arch="tiny_2d", in_channels=1)),
        (dict(configuration="3d_cascade_fullres"), dict(in_channels=3)),
        ({**REGIONS, **TWO_CHANNELS, "configuration": "3d_cascade_fullres"}, dict(in_channels=5, num_classes=3)),
    ],
)
def test_every_kind_of_plan_is_a_config_that_builds(tmp_path, preset, changes, network):
    plan = replace(make_plan(), **{**changes, "network": {**make_plan().network, **network}})
    text = render_config(plan, {"scans": "s"}, tmp_path, preset=preset)
    (tmp_path / "config.py").write_text(text)
    plan.save(tmp_path / "plan.json")
    cfg = Config.fromfile(tmp_path / "config.py")
    check_config(cfg)
    check_network(cfg, plan)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    kinds = [step["type"] for step in cfg.train_pipeline]
    assert ("MaskOutsided" in kinds) == any(plan.use_mask)
    assert ("RandPerturbClassesd" in kinds) == plan.cascaded == ("previous" in cfg.train_dataloader.dataset)
    assert model.slicewise == plan.slicewise and model.plan["patch_size"] == list(plan.patch_size)
    assert cfg.val_evaluator.get("regions", {}) == plan.region_classes
    assert cfg.train_dataloader.dataset.get("ignore_index") == plan.ignore_class
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 120


@pytest.mark.parametrize(
    ("patch", "configuration"), [((1, 24, 16), "2d"), ((16, 16, 16), "3d_fullres"), ((8, 32, 32), "3d_fullres")]
)
def test_every_step_of_the_augmentation_runs(tmp_path, patch, configuration):
    """Also those that a short training seldom draws."""
    plan = replace(make_plan(), patch_size=patch, configuration=configuration, batch_size=2)
    text = render_config(plan, {"scans": "s"}, tmp_path)
    (tmp_path / "config.py").write_text(text)
    cfg = Config.fromfile(tmp_path / "config.py")
    sides = patch[1:] if plan.slicewise else patch
    image = torch.rand(1, *cfg.enlarged)
    data = {"image": image, "label": (image > 0.5).float()}
    for step in cfg.train_pipeline:
        drawn = TRANSFORMS.build(dict(step, **({"prob": 1.0} if "prob" in step else {}), _scope_="mamba_vision"))
        data = drawn(data)
    assert data["image"].shape == data["label"].shape == (1, *sides) and data["image"].isfinite().all()
    assert set(data["label"].unique().tolist()) <= {0, 1} and data["image"].std() > 0
