"""Training and prediction with prompts, and the loss, against its formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mamba_vision.engine import undecayed_parameters
from mamba_vision.models.losses import StructureLoss
from mamba_vision.models.tasks.prompt_segmentor import PromptSegmentor, batched_prompts
from mamba_vision.registry import MODELS
from mamba_vision.structures import PromptDataSample


def sample(size=(32, 48), **fields) -> PromptDataSample:
    mask = torch.zeros(size).bool()
    mask[4:20, 8:30] = True
    return PromptDataSample(gt_mask=mask, metainfo=dict(ori_shape=(40, 60)), **fields)


@pytest.fixture
def model() -> PromptSegmentor:
    return MODELS.build(
        dict(type="mamba_vision.PromptSegmentor", network=dict(type="mamba_vision.ProMamba", arch="test"),
             loss=dict(type="mamba_vision.StructureLoss"))
    )  # fmt: skip


@pytest.fixture
def samples() -> list[PromptDataSample]:
    box = torch.tensor([[8.0, 4, 30, 20], [0, 0, 5, 5]])
    return [sample(boxes=box), sample(points=torch.tensor([[9.0, 9]]), labels=torch.tensor([1])), sample()]


def test_structure_loss_by_its_formula():
    logits, mask = torch.randn(2, 1, 12, 14).double(), (torch.rand(2, 1, 12, 14) < 0.4).double()
    losses = []
    for z, m in zip(logits[:, 0], mask[:, 0]):
        padded = F.pad(m, (2, 2, 2, 2))
        around = torch.stack([padded[i : i + 12, j : j + 14] for i in range(5) for j in range(5)]).sum(0) / 25
        w, p = 1 + 5 * (around - m).abs(), 1 / (1 + torch.exp(-z))
        entropy = -(m * p.log() + (1 - m) * (1 - p).log())
        both = (w * p * m).sum()
        losses.append((w * entropy).sum() / w.sum() + 1 - (both + 1) / ((w * (p + m)).sum() - both + 1))
    loss = StructureLoss(window=5)
    torch.testing.assert_close(loss(logits, mask), torch.stack(losses).mean())
    assert torch.autograd.gradcheck(lambda z: loss(z, mask), logits.requires_grad_())
    assert loss((40 * mask - 20).half(), mask).item() < 1e-4
    assert loss(torch.full((1, 1, 8, 8), 6e4).half(), torch.zeros(1, 1, 8, 8)).isfinite()
    with pytest.raises(ValueError, match="window: found 4"):
        StructureLoss(window=4)


def test_losses_are_weighted_as_written(model, samples):
    model.eval()  # no scaling
    inputs = torch.randn(3, 3, 32, 48)
    losses = model(inputs, samples, mode="loss")
    logits = model.network(inputs, **batched_prompts(samples, inputs.device), deep=True)
    mask = samples[0].gt_mask[None, None].float().expand(3, -1, -1, -1)
    for (name, value), weight, one in zip(losses.items(), (1, 0.6, 0.4), logits):
        assert name.startswith("loss_")
        torch.testing.assert_close(value, weight * model.loss(one, mask))


def test_scaled_batches_keep_prompts_in_place(model, samples):
    model.scales = (2.0,)
    seen = {}
    model.network.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs, image=args[0]), with_kwargs=True
    )
    losses = model(torch.randn(3, 3, 32, 48), samples, mode="loss")
    assert seen["image"].shape == (3, 3, 64, 96) and all(value.isfinite() for value in losses.values())
    torch.testing.assert_close(seen["boxes"][0, :2], 2 * samples[0].boxes)
    torch.testing.assert_close(seen["points"][1, 0], 2 * (samples[1].points[0] + 0.5) - 0.5)
    assert seen["box_mask"].tolist() == [[True, True], [False, False], [False, False]]


def test_predictions_have_the_size_of_the_file(model, samples):
    model.eval()
    data = model.data_preprocessor({"inputs": [torch.zeros(3, 32, 48).byte()] * 3, "data_samples": samples})
    with torch.no_grad():
        found = model(**data, mode="predict")
    assert all(one.pred_prob.shape == (40, 60) and one.pred_mask.dtype == torch.bool for one in found)
    assert all(torch.equal(one.pred_mask, one.pred_prob >= 0.5) for one in found)
    assert model(data["inputs"], samples).shape == (3, 1, 32, 48)
    assert model(data["inputs"], mode="predict")[0].pred_prob.shape == (32, 48)  # no samples: no prompts


def test_box_by_box_joins_by_the_maximum(model, samples):
    model.eval()
    inputs = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        features = model.network.encode(inputs)
        each = []
        for number in range(2):
            one = [PromptDataSample(**{key: value for key, value in s.items() if key != "gt_mask"}) for s in samples]
            one[0].boxes = samples[0].boxes[number : number + 1]
            each.append(model.probabilities(features, one, (32, 48)))
        model.per_box = True
        joined = model.probabilities(features, samples, (32, 48))
    torch.testing.assert_close(joined[0], torch.maximum(each[0][0], each[1][0]))
    torch.testing.assert_close(joined[1], each[0][1])


def test_normalization():
    preprocessor = MODELS.build(dict(type="mamba_vision.PromptPreprocessor"))
    image = torch.tensor([124, 116, 104]).byte().view(3, 1, 1).expand(3, 4, 4)
    assert preprocessor({"inputs": [image]})["inputs"].abs().max() < 0.01
    with pytest.raises(ValueError, match="images of one shape"):
        preprocessor({"inputs": [image, image[:, :2]]})


def test_training_step_moves_everything(model, samples):
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        sum(model(torch.randn(3, 3, 32, 48), samples, mode="loss").values()).backward()
        optimizer.step()
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]


def test_what_is_not_decayed(model):
    names = set(undecayed_parameters(model))
    for name in ("encoder.pos_embed", "prompts.none_tokens", "prompts.no_cover_token", "fusion.0.gate",
                 "fusion.0.mixer.A_log", "fusion.0.mixer.A_b_log", "encoder.layers.0.mixer.D"):  # fmt: skip
        assert f"network.{name}" in names
    assert not any(name.endswith(("in_proj.weight", "conv.weight")) for name in names)


def test_settings_and_data_are_checked(model, samples):
    inputs = torch.randn(3, 3, 32, 48)
    with pytest.raises(ValueError, match="mode: expected"):
        model(inputs, samples, mode="train")
    with pytest.raises(ValueError, match="needs a sample with gt_mask"):
        model(inputs, [PromptDataSample()] * 3, mode="loss")
    with pytest.raises(ValueError, match=r"gt_mask: found \(32, 48\) pixels, inputs have \(16, 16\)"):
        model(inputs[..., :16, :16], samples, mode="loss")
    with pytest.raises(ValueError, match="built without one"):
        PromptSegmentor(nn.Identity())(inputs, samples, mode="loss")
    with pytest.raises(ValueError, match="expected scales > 0"):
        PromptSegmentor(nn.Identity(), scales=())
