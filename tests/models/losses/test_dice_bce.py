"""The loss of regions, against a plain calculation."""

import pytest
import torch
import torch.nn.functional as F

from mamba_vision.models.losses import DiceBCELoss

REGIONS = [[1, 2, 3], [2, 3], [3]]


def by_hand(logits, label, batch, ignored=None):
    total_dice, total_entropy = [], []
    for number, members in enumerate(REGIONS):
        chance = logits[:, number].sigmoid()
        target = sum((label == member).double() for member in members)
        counted = (label != ignored).double() if ignored is not None else torch.ones_like(target)
        axes = tuple(range(0 if batch else 1, label.ndim))
        overlap = (chance * target * counted).sum(axes)
        dice = (2 * overlap + 1e-5) / (((chance + target) * counted).sum(axes) + 1e-5)
        total_dice.append(dice.mean())
        entropy = F.binary_cross_entropy(chance, target, reduction="none") * counted
        total_entropy.append(entropy.sum() / counted.sum())
    return 1 - torch.stack(total_dice).mean() + torch.stack(total_entropy).mean()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("ignored", [None, 4])
def test_value_is_that_of_the_formula(batch, ignored):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    label = torch.randint(0, 5 if ignored else 4, (2, 4, 5, 6), generator=generator)
    loss = DiceBCELoss(REGIONS, batch_dice=batch, ignore_index=ignored)(logits, label)
    assert float(loss) == pytest.approx(float(by_hand(logits.double(), label, batch, ignored)), rel=1e-5)


def test_ignored_voxels_have_no_gradient():
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    label = torch.randint(0, 4, (1, 4, 4, 4))
    label[0, 0] = 4
    DiceBCELoss(REGIONS, ignore_index=4)(logits, label).backward()
    assert (logits.grad[0, :, 0] == 0).all() and (logits.grad[0, :, 1:] != 0).all()


def test_bad_arguments():
    loss = DiceBCELoss(REGIONS)
    with pytest.raises(ValueError, match="label: expected"):
        loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5))
    with pytest.raises(ValueError, match="a channel for each of 3 regions"):
        loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="regions: expected"):
        DiceBCELoss([])
