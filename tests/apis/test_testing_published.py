"""tools/test.py takes a published file as it is, and refuses one of another network."""

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from mamba_vision.apis.testing import TestOptions, run_test
from mamba_vision.checkpoints import CheckpointError
from mamba_vision.datasets.scenes import CLASSES

TEXT = """
default_scope = "mmpretrain"
custom_imports = dict(imports=["mamba_vision.models", "mamba_vision.datasets"])
model = dict(
    type="ImageClassifier",
    backbone=dict(type="mamba_vision.VMamba", arch="test", out_indices=(3,)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=21, in_channels=128),
)
data_preprocessor = dict(num_classes=21, mean=[127.0] * 3, std=[60.0] * 3, to_rgb=True)
test_dataloader = dict(
    batch_size=21,
    dataset=dict(
        type="mamba_vision.SceneDataset", name="uc", data_root={root!r}, split="val", train_share=0.5,
        pipeline=[dict(type="LoadImageFromFile"), dict(type="PackInputs")],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
test_evaluator = dict(type="Accuracy", topk=1)
test_cfg = dict()
"""


@pytest.fixture
def config(tmp_path):
    random = np.random.RandomState(0)
    for name in CLASSES["uc"].split():
        (tmp_path / "uc" / name).mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(random.randint(0, 255, (32, 32, 3), dtype=np.uint8))
            image.save(tmp_path / "uc" / name / f"{i}.png")
    (tmp_path / "config.py").write_text(TEXT.format(root=str(tmp_path / "uc")))
    cfg = Config.fromfile(tmp_path / "config.py")
    cfg.work_dir = str(tmp_path / "work")
    return cfg


def test_published_file(config, tmp_path):
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(config.model)
    # a head whose third class always wins: right once in 21 if and only if the file's weights are used
    torch.nn.init.zeros_(model.head.fc.weight)
    model.head.fc.bias.data = torch.nn.functional.one_hot(torch.tensor(2), 21).float()
    published = {
        name.removeprefix("backbone.")
        .replace("outnorm3", "classifier.norm")
        .replace("head.fc", "classifier.head"): value
        for name, value in model.state_dict().items()
    }
    torch.save({"model": published}, tmp_path / "vssm.pth")
    mirrored = config.copy()
    metrics = run_test(config, tmp_path / "vssm.pth")
    assert metrics["accuracy/top1"] == pytest.approx(100 / 21, rel=1e-4)
    metrics = run_test(mirrored, tmp_path / "vssm.pth", TestOptions(tta=True))  # a classifier needs no more in its file
    assert metrics["accuracy/top1"] == pytest.approx(100 / 21, rel=1e-4)
    flips, (pack,) = mirrored.test_dataloader.dataset.pipeline[-1].transforms
    assert [flip.prob for flip in flips] == [0.0, 1.0] and pack.type == "PackInputs"


def test_file_of_another_network(config, tmp_path):
    torch.save({"model": {"blocks.0.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="No name agrees"):
        run_test(config, tmp_path / "other.pth")
