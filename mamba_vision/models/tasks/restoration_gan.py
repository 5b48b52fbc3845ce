"""Restoration that has to look real: ImageRestorer against a discriminator."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from mamba_vision.models.losses.adversarial import adversarial_loss
from mamba_vision.models.tasks.restoration import ImageRestorer
from mamba_vision.registry import MODELS


@MODELS.register_module()
class AdversarialRestorer(ImageRestorer):
    """Second stage of real super-resolution: pixel, perceptual and adversarial loss. Two optimizers, `network` and
    `discriminator` (constructor RestorerOptimWrapperConstructor).

    Args:
        network, loss, tiling, mixup, progressive, data_preprocessor, init_cfg: as for `ImageRestorer`.
        discriminator: config (or module) from images to logits.
        perceptual: config (or module) called as perceptual(restored, truth); None: without.
        adversarial_weight: of the adversarial loss.

    Raises:
        ValueError: there is no pixel loss.
    """

    def __init__(
        self, network: dict | nn.Module, discriminator: dict | nn.Module, perceptual: dict | nn.Module | None = None,
        adversarial_weight: float = 0.1, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(network, **options)
        if self.loss is None:
            raise ValueError("loss: an adversarial training needs a pixel loss, too")
        self.discriminator = MODELS.build(discriminator) if isinstance(discriminator, Mapping) else discriminator
        self.perceptual = MODELS.build(perceptual) if isinstance(perceptual, Mapping) else perceptual
        self.adversarial_weight = adversarial_weight

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step of the network, then one of the discriminator on what the network had made."""
        data = self.data_preprocessor(data, training=True)
        inputs, truth = self._cut(data["inputs"], self._truth(data["inputs"], data["data_samples"]))
        self.discriminator.requires_grad_(False)
        with optim_wrapper["network"].optim_context(self):
            restored = self.network(inputs)
            losses = {"loss_pixel": self.loss(restored, truth)}
            if self.perceptual is not None:
                losses["loss_perceptual"] = self.perceptual(restored, truth)
            losses["loss_adversarial"] = self.adversarial_weight * adversarial_loss(self.discriminator(restored), True)
        parsed, log = self.parse_losses(losses)
        optim_wrapper["network"].update_params(parsed)
        self.discriminator.requires_grad_(True)
        with optim_wrapper["discriminator"].optim_context(self):
            fake, real = self.discriminator(restored.detach()), self.discriminator(truth)
            loss = adversarial_loss(real, True) + adversarial_loss(fake, False)
        optim_wrapper["discriminator"].update_params(loss)
        with torch.no_grad():
            log.update(discriminator=loss.detach(), score_real=real.mean(), score_fake=fake.mean())
        return log
