"""Losses of image fusion: parity with the published ones, closed forms, errors."""

import re

import pytest
import torch
from recorded import recorded

from mamba_vision.models.losses import FusionLoss, SharpeningLoss
from mamba_vision.models.losses.fusion_sharpening import ergas
from mamba_vision.registry import MODELS

MEDICAL = dict(texture=100, structure=50, adaptive=False, texture_channels=1)


@pytest.mark.parametrize("name", recorded("fusionmamba", "ERGAS"))
def test_sharpening_loss_parity(golden, name: str) -> None:
    case = golden(f"fusionmamba/{name}")
    ratio = float(re.search(r"ratio=(\d+)", case.source["class"])[1])
    fused, truth = case.state_dict()["sr"].requires_grad_(), case.inputs()["gt"]
    losses = torch.stack(
        [
            SharpeningLoss()(fused, truth),
            ergas(fused, truth, ratio),
            SharpeningLoss(ergas_weight=1e-4, scale=ratio)(fused, truth),
        ]
    )
    case.loss(losses=losses).backward()
    case.check({"sr": fused.grad}, losses=losses)


def test_ergas_of_a_constant_error() -> None:
    truth = torch.full((2, 3, 4, 4), 0.5)
    assert ergas(truth + 0.05, truth, 4).item() == pytest.approx(100 / 4 * 0.1, rel=1e-5)


def test_sharpening_loss_errors() -> None:
    with pytest.raises(ValueError, match=r"target: found shape \(1, 3, 4, 4\)"):
        MODELS.build(dict(type="mamba_vision.SharpeningLoss"))(torch.rand(1, 4, 4, 4), torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="ergas_weight: expected a number from 0, found -1"):
        SharpeningLoss(ergas_weight=-1)
    with pytest.raises(ValueError, match="scale: expected a positive number, found 0"):
        SharpeningLoss(scale=0)


@pytest.mark.parametrize("name", recorded("mambadfuse", "fusion_loss_vif", "fusion_loss_med"))
def test_fusion_loss_parity(golden, name: str) -> None:
    case = golden(f"mambadfuse/{name}")
    loss = FusionLoss(**MEDICAL) if "fusion_loss_med" in case.source["class"] else FusionLoss()
    fused, sources = case.state_dict()["fused"].requires_grad_(), case.inputs().values()
    terms = loss.terms(fused, *sources)
    losses = torch.stack([loss(fused, *sources), terms["texture"], terms["intensity"], terms["structure"]])
    case.loss(losses=losses).backward()
    case.check({"fused": fused.grad}, losses=losses)


def test_texture_of_the_first_channel_alone() -> None:
    images = torch.rand(3, 2, 3, 16, 16)
    gray = FusionLoss(**MEDICAL).terms(*images[:, :, :1])
    color, whole = FusionLoss(**MEDICAL).terms(*images), FusionLoss(**{**MEDICAL, "texture_channels": None})
    assert color["texture"] == gray["texture"] != whole.terms(*images)["texture"]
    assert color["intensity"] != gray["intensity"] and color["structure"] != gray["structure"]
    with pytest.raises(ValueError, match="texture_channels: expected a number from 1"):
        FusionLoss(texture_channels=0)


def test_fusing_an_image_with_itself_costs_nothing() -> None:
    image = torch.rand(1, 2, 16, 16)
    assert FusionLoss()(image, image, image).item() == pytest.approx(0, abs=1e-5)
    flat = torch.zeros(1, 1, 16, 16)
    assert FusionLoss()(flat, flat, flat).item() == pytest.approx(0, abs=1e-5)


def test_fusion_loss_gradients_against_differences() -> None:
    sources = torch.rand(2, 1, 1, 6, 7, dtype=torch.float64)
    fused = torch.rand(1, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: FusionLoss()(image, *sources), fused)


def test_fusion_loss_errors() -> None:
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"second: found shape \(1, 1, 8, 9\), expected that of fused"):
        MODELS.build(dict(type="mamba_vision.FusionLoss"))(image, image, torch.rand(1, 1, 8, 9))
    with pytest.raises(ValueError, match="texture: expected a weight from 0, found -1"):
        FusionLoss(texture=-1)
