"""ImageFuser and ImageSharpener: modes, any size, tiles, baselines, errors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.registry import MODELS
from mamba_vision.structures import FusionDataSample


def fuser(**options):
    network = dict(type="mamba_vision.MambaDFuse", arch="tiny")
    loss = dict(type="mamba_vision.FusionLoss")
    return MODELS.build(dict(type="mamba_vision.ImageFuser", network=network, loss=loss, **options))


def sharpener(**options):
    network = dict(type="mamba_vision.FusionMamba", arch="tiny")
    loss = dict(type="mamba_vision.SharpeningLoss")
    return MODELS.build(dict(type="mamba_vision.ImageSharpener", network=network, loss=loss, **options))


class Enlarged(nn.Module):
    """Sharpens nothing, but looks near only."""

    bands, guide_channels, scale = 4, 1, 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, ms, pan):
        return self.weight * F.interpolate(ms, scale_factor=4.0) * pan


def test_fuser_modes() -> None:
    model = fuser()
    inputs = dict(first=torch.rand(2, 1, 12, 13), second=torch.rand(2, 1, 12, 13))
    assert model(inputs).shape == (2, 1, 12, 13)
    losses = model(inputs, mode="loss")
    assert set(losses) == {"loss_texture", "loss_intensity", "loss_structure"}
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, model.loss(model(inputs), *inputs.values()))
    samples = model.eval()(inputs, mode="predict")
    assert all(s.pred_image.min() >= 0 and s.pred_image.max() <= 1 for s in samples)
    assert {tuple(s.pred_image.shape) for s in samples} == {(1, 12, 13)}
    baselines = model.baselines(inputs)
    assert torch.equal(baselines["maximum"], torch.maximum(*inputs.values())) and set(baselines) == {"mean", "maximum"}
    tiled = fuser(tiling=dict(tile=16)).eval()(dict(first=torch.rand(1, 1, 20, 17), second=torch.rand(1, 1, 20, 17)),
                                               mode="predict")  # fmt: skip
    assert tiled[0].pred_image.shape == (1, 20, 17)
    with pytest.raises(ValueError, match="mode: expected"):
        model(inputs, mode="fuse")
    model.loss = None
    with pytest.raises(ValueError, match="built without one"):
        model(inputs, mode="loss")


def test_sharpener_modes() -> None:
    model = sharpener(peak=2047)
    inputs = dict(ms=torch.rand(2, 4, 5, 6), pan=torch.rand(2, 1, 20, 24))
    assert model(inputs).shape == (2, 4, 20, 24) and model.peak == 2047 and model.scale == 4
    truth = torch.rand(2, 4, 20, 24)
    loss = model(inputs, [FusionDataSample(gt_image=image) for image in truth], mode="loss")["loss"]
    torch.testing.assert_close(loss, F.l1_loss(model(inputs), truth))
    samples = model.eval()(inputs, mode="predict")
    assert all(s.pred_image.min() >= 0 and s.pred_image.max() <= 1 for s in samples)
    flat = dict(ms=torch.full((1, 4, 5, 6), 0.25), pan=torch.rand(1, 1, 20, 24))
    torch.testing.assert_close(model.baselines(flat)["bicubic"], torch.full((1, 4, 20, 24), 0.25))
    with pytest.raises(ValueError, match="gt_image for every input"):
        model(inputs, mode="loss")
    with pytest.raises(ValueError, match="it is 2 times larger than ms, expected 4"):
        model(dict(ms=torch.rand(1, 4, 4, 4), pan=torch.rand(1, 1, 8, 8)), mode="predict")
    with pytest.raises(ValueError, match=r"ms: found shape \(1, 3, 4, 4\), expected \(batch, 4"):
        model(dict(ms=torch.rand(1, 3, 4, 4), pan=torch.rand(1, 1, 16, 16)))
    with pytest.raises(ValueError, match="peak: expected a positive"):
        sharpener(peak=0)
    with pytest.raises(ValueError, match="mode: expected"):
        model(inputs, mode="sharpen")


@pytest.mark.parametrize("way", [dict(cut_size=32), dict(tiling=dict(tile=16)), {}])
def test_ways_to_sharpen_agree_where_the_network_looks_near(way: dict) -> None:
    model = MODELS.build(dict(type="mamba_vision.ImageSharpener", network=Enlarged(), **way)).eval()
    inputs = dict(ms=torch.rand(1, 4, 21, 37), pan=torch.rand(1, 1, 84, 148))
    want = model.network(*inputs.values())
    torch.testing.assert_close(model(inputs, mode="predict")[0].pred_image, want[0])
    torch.testing.assert_close(model.sharpen(*inputs.values(), Tiling(tile=20)), want)


def test_images_that_fit_a_published_tile_go_whole() -> None:
    model = sharpener(cut_size=64).eval()
    inputs = dict(ms=torch.rand(1, 4, 8, 16), pan=torch.rand(1, 1, 32, 64))
    with torch.no_grad():
        torch.testing.assert_close(model(inputs, mode="predict")[0].pred_image, model(inputs)[0].clamp(0, 1))


def test_preprocessor() -> None:
    preprocessor = MODELS.build(dict(type="mamba_vision.ImagePreprocessor"))
    given = dict(inputs=dict(ms=[torch.rand(4, 2, 2)] * 2, pan=torch.rand(2, 1, 8, 8)), data_samples=None)
    assert preprocessor(given)["inputs"]["ms"].shape == (2, 4, 2, 2)
    given["inputs"]["pan"] = [torch.rand(1, 8, 8), torch.rand(1, 8, 4)]
    with pytest.raises(ValueError, match="pan: a batch holds images of one shape"):
        preprocessor(given)
