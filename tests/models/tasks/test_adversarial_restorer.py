"""Restoration against a discriminator: who learns what in a step, the losses, the optimizers."""

import pytest
import torch
from mmengine.optim import OptimWrapperDict

from mamba_vision.engine.restoration_optim import RestorerOptimWrapperConstructor
from mamba_vision.models.losses.adversarial import PerceptualLoss, UNetDiscriminator, adversarial_loss
from mamba_vision.models.tasks.restoration_gan import AdversarialRestorer
from mamba_vision.registry import MODELS
from mamba_vision.structures import RestorationDataSample

ADAM = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3))


def restorer(**options) -> AdversarialRestorer:
    settings = dict(
        type="mamba_vision.AdversarialRestorer",
        network=dict(type="MambaIR", arch="tiny"),
        discriminator=dict(type="UNetDiscriminator", width=8),
        loss=dict(type="PixelLoss"),
    )
    return MODELS.build({**settings, **options})


def test_a_step_moves_both_networks_and_each_by_its_own_loss() -> None:
    model = restorer(perceptual=dict(type="PerceptualLoss", layers=dict(conv1_2=1.0)))
    wrapper = RestorerOptimWrapperConstructor(dict(network=ADAM, discriminator=ADAM))(model)
    assert isinstance(wrapper, OptimWrapperDict)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    samples = [RestorationDataSample(gt_image=torch.rand(3, 32, 32)) for _ in range(2)]
    log = model.train_step(dict(inputs=[torch.rand(3, 16, 16)] * 2, data_samples=samples), wrapper)
    assert {"loss", "loss_pixel", "loss_perceptual", "loss_adversarial", "discriminator"} <= set(log)
    assert all(torch.as_tensor(value).isfinite() for value in log.values())
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("network.") for name in moved)
    assert any(name.startswith("discriminator.") for name in moved)
    assert not any(name.startswith("perceptual.") for name in moved)
    assert all(p.requires_grad for p in model.discriminator.parameters())
    assert model(torch.rand(1, 3, 9, 8), mode="predict")[0].pred_image.shape == (3, 18, 16)


def test_the_discriminator_learns_to_tell() -> None:
    torch.manual_seed(0)
    judge = UNetDiscriminator(width=8)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    real, fake = torch.rand(4, 3, 20, 27), torch.full((4, 3, 20, 27), 0.5)
    assert judge(real).shape == (4, 1, 20, 27)
    losses = []
    for _ in range(20):
        loss = adversarial_loss(judge(real), True) + adversarial_loss(judge(fake), False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_perceptual_loss(tmp_path) -> None:
    loss = PerceptualLoss()
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert loss(x, x.detach()).item() == 0
    loss(x, torch.rand(1, 3, 32, 32)).backward()
    assert x.grad.abs().sum() > 0 and not any(p.requires_grad for p in loss.parameters())
    with pytest.raises(ValueError, match="layers: found"):
        PerceptualLoss(dict(conv9=1.0))
    # torchvision's file has the classifier, too
    small = {**loss.state_dict(), "classifier.0.weight": torch.zeros(1)}
    torch.save(small, tmp_path / "vgg.pth")
    loaded = MODELS.build(
        dict(type="mamba_vision.PerceptualLoss", init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "vgg.pth")))
    )
    loaded.init_weights()
    assert torch.equal(loaded.features[0].weight, loss.features[0].weight)


def test_errors() -> None:
    with pytest.raises(ValueError, match="needs a pixel loss"):
        restorer(loss=None)
    with pytest.raises(ValueError, match="expected network and discriminator, found type, network"):
        RestorerOptimWrapperConstructor(dict(type="OptimWrapper", network=ADAM))
