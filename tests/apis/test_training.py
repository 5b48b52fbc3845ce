"""Options of training that need no training to look at, and configurations that are not about volumes."""

import pytest
import torch
from miniature import SHORT, make_work_dir
from mmengine.config import Config

from mamba_vision.apis.training import is_first_process, join_processes, train
from mamba_vision.apis.training_folder import set_aside
from mamba_vision.apis.training_options import TrainOptions, configure, use_amp
from mamba_vision.checkpoints import load_file


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_work_dir(tmp_path_factory.mktemp("training"))


def options(**settings) -> TrainOptions:
    return TrainOptions(**settings)


def test_arguments_reach_the_configuration(config):
    loaders = {"train_dataloader.num_workers": 2, "train_dataloader.persistent_workers": True}
    cfg = configure(config, options(validate=False, persistent_workers=False, auto_scale_lr=True, cfg_options=loaders))
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.auto_scale_lr.enable is True
    assert configure(config, options(cfg_options=loaders)).train_dataloader.persistent_workers is True


def test_a_fold_has_its_folder_and_reaches_the_data_sets(config):
    cfg = configure(config, options(fold=1))
    assert cfg.work_dir == str(config.parent / "fold_1")
    assert cfg.train_dataloader.dataset.fold == cfg.val_dataloader.dataset.fold == 1
    assert configure(config, options(fold="all", work_dir="w")).work_dir == "w"


def test_amp_on_a_cpu_is_bfloat16(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert configure(config, options(amp=True)).optim_wrapper.type == "mamba_vision.CpuAmpOptimWrapper"
    with pytest.raises(ValueError, match=r"only 'OptimWrapper'"):
        use_amp(Config({"optim_wrapper": {"type": "ApexOptimWrapper"}}))


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_amp_on_a_gpu_is_bfloat16_where_there_is_one(config, monkeypatch, has_bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    wrapper = configure(config, options(amp=True)).optim_wrapper
    assert (wrapper.type, wrapper.dtype) == ("AmpOptimWrapper", dtype)
    assert wrapper.clip_grad.max_norm == 12


def test_first_process(monkeypatch):
    assert is_first_process("none")
    monkeypatch.setenv("RANK", "1")
    assert is_first_process("none")
    assert not is_first_process("pytorch")
    monkeypatch.setenv("SLURM_PROCID", "2")
    assert not is_first_process("slurm")


def test_launchers_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="only 'pytorch'"):
        join_processes(Config({}), "slurm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scans": "nowhere"}, "nowhere"),
        ({"plan": "nowhere.json"}, r"nowhere\.json"),
        ({"splits": "nowhere.json"}, r"nowhere\.json"),
        ({"fold": 9}, "fold: .*splits.json holds folds 0 to .; expected one of them or 'all', found 9"),
        (
            {"network": {"type": "UMamba", "arch": "tiny", "in_channels": 2, "num_classes": 3}},
            "in_channels: expected 1",
        ),
        (
            {"network": {"type": "UMamba", "arch": "tiny", "in_channels": 1, "num_classes": 9}},
            "num_classes: expected 3",
        ),
    ],
)
def test_what_does_not_fit_together_is_said_before_long_work(config, tmp_path, change, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(config, work_dir=tmp_path, cfg_options={**SHORT, **change})
    assert not list(tmp_path.iterdir())


def test_cases_of_the_splits_without_a_labelled_scan_are_named(config, tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text('[{"train": ["case_0", "lost"], "val": ["case_1"]}]')
    with pytest.raises(ValueError, match=r"1 of 3 cases have no scan with a label.*lost"):
        train(config, work_dir=tmp_path, cfg_options={**SHORT, "splits": str(splits)})


CLASSIFIER = """
default_scope = 'mmengine'
model = dict(type='ToyForTest')
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(type='ToyDataForTest'))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


def test_any_mmengine_config_trains_with_safe_checkpoints(tmp_path):
    from mmengine.model import BaseModel
    from mmengine.registry import DATASETS, MODELS

    class ToyForTest(BaseModel):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, inputs, mode="tensor"):
            return {"loss": self.layer(torch.stack(inputs)).square().mean()}

    class ToyDataForTest(torch.utils.data.Dataset):
        metainfo = {}  # noqa: RUF012

        def __len__(self):
            return 6

        def __getitem__(self, index):
            return {"inputs": torch.full((1,), float(index))}

    MODELS.register_module(module=ToyForTest, force=True)
    DATASETS.register_module(module=ToyDataForTest, force=True)
    config = tmp_path / "toy.py"
    config.write_text(CLASSIFIER)
    work = tmp_path / "out"
    train(config, work_dir=work)
    assert (work / "last_checkpoint").read_text() == "epoch_2.pth"
    assert load_file(work / "epoch_2.pth")["meta"]["epoch"] == 2
    runner = train(config, work_dir=work, resume="auto", cfg_options={"train_cfg.max_epochs": 3})
    assert (runner.epoch, runner.iter) == (3, 9)


def test_another_training_in_the_folder_keeps_the_earlier_one(tmp_path):
    folder, cfg = tmp_path / "work", Config({"work_dir": str(tmp_path / "work"), "resume": False, "load_from": None})
    (folder / "val").mkdir(parents=True)
    assert set_aside(cfg) is None
    for name in (
        "last_checkpoint",
        "epoch_8.pth",
        "best_dice_epoch_8.pth",
        "progress.png",
        "config.py",
        "val/epoch_8.png",
    ):
        (folder / name).write_text(name)
    assert set_aside(Config({**cfg, "resume": True})) is None
    assert set_aside(cfg) == folder / "earlier_1"
    assert (folder / "earlier_1" / "best_dice_epoch_8.pth").read_text() == "best_dice_epoch_8.pth"
    assert (folder / "earlier_1" / "val" / "epoch_8.png").is_file()
    assert sorted(file.name for file in folder.iterdir()) == ["config.py", "earlier_1"]
    for name in ("last_checkpoint", "epoch_2.pth", "epoch_4.pth"):
        (folder / name).write_text(name)
    assert set_aside(Config({**cfg, "load_from": str(folder / "epoch_4.pth")})) == folder / "earlier_2"
    assert (folder / "epoch_4.pth").is_file() and (folder / "earlier_2" / "epoch_2.pth").is_file()
