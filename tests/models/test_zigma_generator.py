"""The generator: what it trains on, what it draws, guidance, the scale of latents."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mamba_vision.models.diffusion import Sampler
from mamba_vision.models.tasks.generation import DiffusionGenerator
from mamba_vision.registry import MODELS


class Field(torch.nn.Module):
    """A network that says what can be reckoned by hand, and remembers what it was asked."""

    num_classes, text_channels = 2, 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.asked = []

    def forward(self, x, times, condition=None):
        self.asked.append((x.detach(), times, condition))
        return self.weight * condition.reshape(-1, 1, 1, 1).to(x).expand_as(x)

    def no_condition(self, condition):
        return torch.full_like(condition, 7)


def generator(**options) -> DiffusionGenerator:
    return DiffusionGenerator(Field(), sampler=dict(method="euler", num_steps=5), **options)


def samples(*labels: int) -> list[DataSample]:
    return [DataSample(metainfo=dict(sample_idx=n)).set_gt_label(label) for n, label in enumerate(labels)]


def test_training_step_of_the_real_network():
    network = dict(type="mamba_vision.ZigMa", arch="tiny", in_channels=1, num_classes=3, null_class=True)
    model = MODELS.build(
        dict(
            type="mamba_vision.DiffusionGenerator",
            network=network,
            condition_dropout=0.5,
            sampler=dict(method="heun", num_steps=3),
        )
    )
    data = dict(inputs=[torch.randn(1, 8, 8)] * 4, data_samples=samples(0, 1, 2, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    data = model.data_preprocessor(data, training=True)
    losses = []
    for _ in range(15):
        torch.manual_seed(3)  # the same times and noise: the loss must fall
        loss = model(**data, mode="loss")["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert model(**data).shape == (4, 1, 8, 8)
    drawn = model(**data, mode="predict")
    assert drawn[2].pred_img.shape == (1, 8, 8) and torch.equal(drawn[2].gt_img, data["inputs"][2])


def test_loss_of_latents_is_that_of_scaled_ones():
    model = generator(scale=0.25)
    x1 = torch.randn(3, 1, 2, 2)
    torch.manual_seed(5)
    loss = model(x1, samples(0, 0, 0), mode="loss")["loss"]
    torch.manual_seed(5)
    x0, times = torch.randn(3, 1, 2, 2), torch.rand(3)  # as Transport draws them
    torch.testing.assert_close(loss, (0.25 * x1 - x0).square().mean())
    asked = model.network.asked[0]
    t = times.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(asked[0], t * 0.25 * x1 + (1 - t) * x0)


def test_samples_follow_the_field_and_the_scale():
    """Under the constant velocity c noise becomes noise + c."""
    noise = torch.randn(2, 1, 2, 2)
    drawn = generator(scale=0.5).sample(noise, torch.tensor([0, 1]))
    torch.testing.assert_close(drawn, (noise + torch.tensor([0.0, 1.0]).reshape(-1, 1, 1, 1)) / 0.5)


def test_guidance():
    """7 without condition, 1 with it, weight 3: 7 + 3 (1 - 7) = -11."""
    noise = torch.zeros(1, 1, 2, 2)
    drawn = generator(guidance=3.0).sample(noise, torch.tensor([1]))
    torch.testing.assert_close(drawn, torch.full_like(noise, -11.0))
    drawn = generator(guidance=3.0).sample(noise, torch.tensor([1]), guidance=1)
    torch.testing.assert_close(drawn, torch.ones_like(noise))


def test_dropped_conditions():
    model = generator(condition_dropout=0.25)
    model(torch.zeros(4000, 1, 1, 1), samples(*[1] * 4000), mode="loss")
    told = model.network.asked[0][2]
    assert set(told.tolist()) == {1, 7} and abs(float((told == 7).float().mean()) - 0.25) < 0.03


def test_prediction_repeats_and_does_not_depend_on_the_batch():
    model = generator()
    inputs, data = torch.zeros(3, 1, 2, 2), samples(0, 1, 0)
    whole = [sample.pred_img.clone() for sample in model(inputs, data, mode="predict")]
    alone = model(inputs[2:], data[2:], mode="predict")[0].pred_img
    assert torch.equal(whole[2], alone) and not torch.equal(whole[0], whole[2])


def test_another_sampler():
    model = generator()
    model.sample(torch.zeros(1, 1, 2, 2), torch.tensor([0]), Sampler("heun", num_steps=4))
    assert len(model.network.asked) == 6


def test_text_comes_from_the_samples():
    model = generator()
    model.network.text_channels = 4
    data = samples(0, 1)
    for number, sample in enumerate(data):
        sample.set_field(torch.full((3, 4), float(number)), "text")
    assert model.condition_of(data).shape == (2, 3, 4) and model.condition_of(data)[1].unique().tolist() == [1.0]
    model.network.text_channels = model.network.num_classes = 0
    assert model.condition_of(data) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generator(condition_dropout=2), "condition_dropout: found 2"),
        (lambda: generator(scale=0), "scale: found 0"),
        (lambda: generator(transport=dict(paths="vp")), "transport: .*unexpected keyword argument 'paths'"),
        (lambda: DiffusionGenerator(Field(), sampler=dict(step=3)), "sampler: .*unexpected keyword argument 'step'"),
        (lambda: generator()(torch.zeros(1, 1, 2, 2), mode="loss"), "data_samples: the network wants a sample with gt"),
        (lambda: generator()(torch.zeros(1, 1, 2, 2), samples(0), mode="train"), "mode: expected 'tensor'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
