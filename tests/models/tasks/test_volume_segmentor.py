import json

import pytest
import torch
from miniature import make_plan
from monai.inferers import SlidingWindowInferer
from torch import nn

from mamba_vision.models.tasks import VolumeSegmentor
from mamba_vision.registry import MODELS
from mamba_vision.structures import VolumeDataSample


class Shift(nn.Module):
    """Logits that tell left from right along the first axis; a list with deep supervision."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.deep_supervision = True

    def forward(self, x):
        place = torch.linspace(-1, 1, x.shape[2]).view(1, 1, -1, 1, 1) * torch.ones_like(x[:, :1])
        logits = torch.cat([x[:, :1] * self.scale, place], 1)
        return [logits, logits[:, :, ::2, ::2, ::2]] if self.deep_supervision else logits


def sample(shape=(8, 8, 8)) -> VolumeDataSample:
    one = VolumeDataSample(metainfo={"case": "a", "spacing": (1.0, 1.0, 1.0)})
    one.gt_label = torch.randint(0, 2, shape).to(torch.int16)
    return one


@pytest.fixture
def model() -> VolumeSegmentor:
    return VolumeSegmentor(Shift(), {"type": "DeepSupervisionLoss", "loss": {"type": "DiceCELoss"}})


def test_builds_from_a_config_with_a_network_of_the_registry():
    cfg = {
        "type": "mamba_vision.VolumeSegmentor",
        "network": {"type": "UMamba", "arch": "tiny"},
        "inferer": {"type": "SlidingWindowInferer", "roi_size": (16, 16, 16)},
        "plan": make_plan().to_dict(),
    }
    model = MODELS.build(cfg)
    assert isinstance(model.inferer, SlidingWindowInferer)
    assert model.inferer.overlap == 0.5
    assert model.inferer.mode == "gaussian"
    assert model.plan["channels"] == ["MR"]


def test_modes(model):
    inputs, samples = torch.randn(2, 1, 8, 8, 8), [sample(), sample()]
    assert len(model(inputs)) == 2
    loss = model(inputs, samples, mode="loss")
    assert set(loss) == {"loss"}
    assert loss["loss"].requires_grad
    predicted = model(inputs, samples, mode="predict")
    assert predicted[0].pred_label.shape == (8, 8, 8)
    assert predicted[0].case == "a"
    with pytest.raises(ValueError, match="mode: expected"):
        model(inputs, mode="train")
    with pytest.raises(ValueError, match="gt_label"):
        model(inputs, [VolumeDataSample(), VolumeDataSample()], mode="loss")
    with pytest.raises(ValueError, match="without one"):
        VolumeSegmentor(Shift())(inputs, samples, mode="loss")


def test_prediction_switches_deep_supervision_off_and_on_again(model):
    logits = model.predict_logits(torch.randn(1, 1, 8, 8, 8))
    assert logits.shape == (1, 2, 8, 8, 8)
    assert model.network.deep_supervision is True


def test_mirrored_prediction_is_the_mean_over_all_flips(model):
    inputs = torch.randn(1, 1, 6, 4, 4)
    plain = model.predict_logits(inputs)
    mirrored = model.predict_logits(inputs, mirror_axes=(0,))
    # What depends on the place is undone by its mirror image; what depends on the voxel stays.
    assert torch.allclose(mirrored[:, 1], torch.zeros(()), atol=1e-6)
    assert torch.allclose(mirrored[:, 0], plain[:, 0], atol=1e-6)
    assert torch.allclose(model.predict_logits(inputs, mirror_axes=(0, 1, 2))[:, 0], plain[:, 0], atol=1e-6)


def test_a_sliding_window_gives_the_size_of_the_volume():
    inferer = {"type": "SlidingWindowInferer", "roi_size": (4, 4, 4)}
    model = VolumeSegmentor(Shift(), inferer=inferer)
    inputs = torch.randn(1, 1, 9, 3, 7)
    assert torch.allclose(model.predict_logits(inputs)[:, 0], inputs[:, 0], atol=1e-5)


def test_train_and_val_step_with_the_preprocessor(model):
    from mmengine.optim import OptimWrapper

    data = {"inputs": [torch.randn(1, 8, 8, 8) for _ in range(2)], "data_samples": [sample(), sample()]}
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.network.scale.item()
    logs = model.train_step(data, wrapper)
    assert model.network.scale.item() != before
    assert set(logs) == {"loss"}
    assert model.val_step(data)[1].pred_label.dtype == torch.int16


def test_volumes_of_different_shapes_are_refused(model):
    with pytest.raises(ValueError, match="one shape"):
        model.data_preprocessor({"inputs": [torch.zeros(1, 4, 4, 4), torch.zeros(1, 5, 4, 4)]})


def test_plan_is_read_from_its_file(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(ValueError, match=r"plan\.json does not exist"):
        VolumeSegmentor(Shift(), plan=path)
    path.write_text(json.dumps({"axes": [2, 1, 0]}))
    assert VolumeSegmentor(Shift(), plan=str(path)).plan == {"axes": [2, 1, 0]}


def test_the_window_that_was_trained_goes_into_the_plan():
    plan = {"patch_size": [8, 8, 8]}
    inferer = {"type": "SlidingWindowInferer", "roi_size": (4, 6, 4)}
    assert VolumeSegmentor(Shift(), inferer=inferer, plan=plan).plan["patch_size"] == [4, 6, 4]
    assert plan == {"patch_size": [8, 8, 8]}


def test_a_sample_holds_volumes_and_moves(model):
    one = sample()
    assert one.to("cpu").gt_label.shape == (8, 8, 8)
    assert "case" in one.metainfo_keys()


def test_regions_paint_their_classes():
    model = VolumeSegmentor(nn.Conv3d(1, 2, 1), paints=(2, 1))
    logits = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1]]).reshape(1, 2, 4, 1, 1)
    assert model.classes_of(logits).flatten().tolist() == [0, 2, 1, 1]
    assert model.classes_of(logits).dtype == torch.int16


def test_a_network_of_slices_predicts_volumes():
    """Slice by slice, by windows in the plane, mirrored in the plane."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 3, padding=1)
    window = {"type": "SlidingWindowInferer", "roi_size": (1, 8, 8), "sw_batch_size": 4}
    model = VolumeSegmentor(network, slicewise=True, inferer=window, mirror_axes=(2,))
    volume = torch.randn(1, 1, 5, 8, 8)
    with torch.no_grad():
        slices = volume[0].transpose(0, 1)
        expected = (network(slices) + network(slices.flip(3)).flip(3)) / 2
        found = model.predict_logits(volume)
        assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3, 8, 8)
    assert torch.allclose(found, expected.transpose(0, 1)[None], atol=1e-6)
