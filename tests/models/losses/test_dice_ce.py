import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss as MonaiDiceCELoss

from mamba_vision.models.losses import DeepSupervisionLoss, DiceCELoss


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, 6, 5, 7, dtype=torch.float64), torch.randint(0, 4, (2, 6, 5, 7))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_equals_monai_without_ignored_voxels(batch, batch_dice):
    logits, label = batch[0].float(), batch[1]
    theirs = MonaiDiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=batch_dice, smooth_nr=1e-5, smooth_dr=1e-5
    )
    mine = DiceCELoss(batch_dice=batch_dice)(logits, label)
    assert mine.item() == pytest.approx(theirs(logits, label.unsqueeze(1)).item(), abs=1e-6)


def test_follows_the_formula_of_nnunet(batch):
    logits, label = batch
    chances, truth = logits.float().softmax(1), F.one_hot(label, 4).movedim(-1, 1).float()
    inner = (chances * truth)[:, 1:].sum((2, 3, 4))
    outer = chances[:, 1:].sum((2, 3, 4)) + truth[:, 1:].sum((2, 3, 4))
    nnunet = -((2 * inner + 1e-5) / (outer + 1e-5)).mean() + F.cross_entropy(logits.float(), label)
    assert DiceCELoss()(logits, label).item() == pytest.approx(1 + nnunet.item(), abs=1e-6)


def test_ignored_voxels_have_no_influence_and_no_gradient(batch):
    logits, label = batch[0].clone().requires_grad_(), batch[1].clone()
    label[:, :3] = 9
    loss = DiceCELoss(ignore_index=9)(logits, label)
    loss.backward()
    assert (logits.grad[:, :, :3] == 0).all()
    assert (logits.grad[:, :, 3:] != 0).any()
    alone = DiceCELoss()(logits[:, :, 3:], label[:, 3:])
    assert loss.item() == pytest.approx(alone.item(), abs=1e-6)


def test_all_ignored_is_finite(batch):
    loss = DiceCELoss(ignore_index=9)(batch[0], torch.full_like(batch[1], 9))
    assert loss.isfinite()


@pytest.mark.parametrize("value", [-1, 4])
def test_labels_outside_the_classes_are_refused(batch, value):
    label = batch[1].clone()
    label[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=f"expected 0 to 3.*found {value}"):
        DiceCELoss()(batch[0], label)


def test_shapes_that_do_not_match_are_refused(batch):
    with pytest.raises(ValueError, match="label: expected"):
        DiceCELoss()(batch[0], batch[1][:, 1:])


def test_half_precision_logits_are_summed_in_float32(batch):
    loss = DiceCELoss()(batch[0].bfloat16(), batch[1])
    assert loss.dtype == torch.float32


def test_deep_supervision_weights_are_those_of_nnunet():
    weights = DeepSupervisionLoss(DiceCELoss()).weights_for(6)
    assert weights == pytest.approx([16 / 31, 8 / 31, 4 / 31, 2 / 31, 1 / 31, 0])
    assert DeepSupervisionLoss(DiceCELoss()).weights_for(1) == (1.0,)
    assert DeepSupervisionLoss(DiceCELoss(), weights=(1, 2)).weights_for(2) == (1.0, 2.0)
    with pytest.raises(ValueError, match="each of 3 outputs"):
        DeepSupervisionLoss(DiceCELoss(), weights=(1, 2)).weights_for(3)


def test_deep_supervision_is_the_weighted_sum_with_nearest_labels():
    label = torch.randint(0, 3, (2, 8, 8, 8))
    outputs = [torch.randn(2, 3, side, side, side, requires_grad=True) for side in (8, 4, 2)]
    loss = DeepSupervisionLoss({"type": "mamba_vision.DiceCELoss"})
    total = loss(outputs, label)
    half = F.interpolate(label[:, None].float(), (4, 4, 4), mode="nearest-exact")[:, 0].long()
    expected = (2 * loss.loss(outputs[0], label) + loss.loss(outputs[1], half)) / 3
    assert total.item() == pytest.approx(expected.item(), abs=1e-6)
    total.backward()
    # The coarsest weighs nothing, yet has a gradient: several processes wait for one of every parameter.
    assert outputs[2].grad is not None
    assert (outputs[2].grad == 0).all()
