import pytest
from miniature import make_work_dir

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_loading import load_config, parse_options
from mamba_vision.utils import project_folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_work_dir(tmp_path_factory.mktemp("reading"))


def test_variables_reach_what_the_file_derives_from_them(config):
    cfg = load_config(config, {"epochs": 3, "patch_size": (8, 8, 8), "optim_wrapper.optimizer.lr": 0.5})
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.model.inferer.roi_size == (8, 8, 8)
    assert cfg.train_dataloader.dataset.patch_size == (8, 8, 8)
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.filename == str(config)
    assert cfg.work_dir == str(config.parent)
    assert [file.name for file in config.parent.glob("*.py")] == ["config.py"]


def test_a_variable_over_several_lines_is_replaced_whole(config):
    cfg = load_config(config, {"train_pipeline": []})
    assert cfg.train_dataloader.dataset.pipeline == []


def test_parse_options():
    words = ["a=1", "b.c=[1,2]", "d=true", "e=text", "f=1,2", "g=a=b", "h=None", "i=(1, 2)"]
    assert parse_options(words) == {
        "a": 1, "b.c": [1, 2], "d": True, "e": "text", "f": (1, 2), "g": "a=b", "h": None, "i": (1, 2),
    }  # fmt: skip
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse_options(["a"])


def test_no_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        load_config(tmp_path)
    broken = tmp_path / "broken.py"
    broken.write_text("a = (")
    with pytest.raises(ValueError, match="not a configuration"):
        load_config(broken)


def test_another_kind_of_file_is_named(tmp_path):
    (tmp_path / "notes.md").write_text("# notes")
    with pytest.raises(ValueError, match=r"notes\.md: found no configuration, expected a file that ends in \.py"):
        load_config(tmp_path / "notes.md")


def test_a_good_configuration_passes(config):
    check_config(load_config(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim_wraper": {}}, "did you mean 'optim_wrapper'"),
        ({"train_dataloder": {}}, "did you mean 'train_dataloader'"),
        ({"optim_wrapper.clip_gard": {}}, "did you mean 'clip_grad'"),
        ({"optim_wrapper.optimizer.weight_deccay": 1}, "did you mean 'weight_decay'"),
        ({"train_cfg.max_epoch": 1}, "did you mean 'max_epochs'"),
        ({"model.type": "VolumeSegmenter"}, "did you mean 'VolumeSegmentor'"),
        ({"model.mirror_axis": ()}, "did you mean 'mirror_axes'"),
        ({"model.network.placment": "bot"}, "did you mean 'placement'"),
        ({"model.loss.loss.batch_dise": True}, "did you mean 'batch_dice'"),
        ({"model.inferer.overlapp": 0.5}, "did you mean 'overlap'"),
        ({"train_dataloader.batchsize": 2}, "did you mean 'batch_size'"),
        ({"train_dataloader.dataset.patchsize": 2}, "did you mean 'patch_size'"),
        ({"train_dataloader.batch_sampler.iteration": 2}, "did you mean 'iterations'"),
        ({"train_pipeline": [{"type": "RandFlip"}]}, "did you mean 'RandFlipd'"),
        ({"train_pipeline": [{"type": "RandFlipd", "keys": "image", "probability": 1}]}, r"pipeline\[0\].probability"),
        ({"val_evaluator.score": ["dice"]}, "did you mean 'scores'"),
        ({"param_scheduler.powr": 2}, "did you mean 'power'"),
        ({"default_hooks.checkpoint.intervall": 2}, "did you mean 'interval'"),
        ({"custom_hooks": [{"type": "InteruptHook"}]}, "did you mean 'InterruptHook'"),
    ],
)
def test_a_misspelt_name_is_found_with_its_neighbour(config, change, message):
    with pytest.raises(ValueError, match=message):
        check_config(load_config(config, change))


@pytest.mark.parametrize("option", ["epchs", "modle.network.placement"])
def test_an_option_that_would_change_nothing_is_refused(config, option):
    with pytest.raises(ValueError, match=f"option {option}: .*did you mean '(epochs|model)'"):
        load_config(config, {option: 3})
    assert load_config(config, {"load_from": "x.pth"}).load_from == "x.pth"


def test_all_problems_come_in_one_message(config):
    with pytest.raises(ValueError, match="2 wrong") as error:
        check_config(load_config(config, {"train_cfg.max_epoch": 1, "model.mirror_axis": ()}))
    assert "model.mirror_axis" in str(error.value)
    assert "train_cfg.max_epoch" in str(error.value)


def test_a_check_of_another_librarys_configuration_says_nothing(capfd):
    cfg = load_config(project_folder("configs") / "vim" / "vim-micro_digits.py")
    cfg.train_dataloader.collate_fn = {"type": "default_collate"}
    check_config(cfg)
    assert "registry" not in "".join(capfd.readouterr())
