"""Fusion of two registered images of one size as an MMEngine model: a network, a loss, tiles for large images."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mamba_vision.models.tasks.fusion_tiles import fuse_as_published, fuse_in_tiles
from mamba_vision.models.tasks.restoration import PREPROCESSOR
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.registry import MODELS
from mamba_vision.structures import FusionDataSample


@MODELS.register_module()
class ImageFuser(BaseModel):
    """Makes one image of two, such as infrared and visible luminance, or MRI and CT.

    Args:
        network: config (or module) that maps two images (B, c, H, W) in [0, 1] to one, with the attribute
            `in_channels` (c).
        loss: config (or module) with `terms(fused, first, second)`, scalars by name; no truth is needed.
        tiling: settings of `Tiling` for prediction; None: whole, as published.
        data_preprocessor, init_cfg: MMEngine's.
    """

    def __init__(
        self, network: dict | nn.Module, loss: dict | nn.Module | None = None, tiling: Mapping[str, Any] | None = None,
        data_preprocessor: dict | nn.Module | None = None, init_cfg: dict | None = None,
    ) -> None:  # fmt: skip
        super().__init__(data_preprocessor or PREPROCESSOR, init_cfg)
        self.network = MODELS.build(network) if isinstance(network, Mapping) else network
        self.loss = MODELS.build(loss) if isinstance(loss, Mapping) else loss
        self.tiling = None if tiling is None else Tiling(**tiling)

    def forward(
        self, inputs: dict[str, Tensor], data_samples: list[FusionDataSample] | None = None, mode: str = "tensor"
    ) -> Tensor | list[FusionDataSample] | dict[str, Tensor]:
        """`inputs`: `first` and `second`, (B, c, H, W). Mode 'tensor': the network's own output; 'loss': the loss's
        terms, as loss_<name>; 'predict': the samples with `pred_image` (c, H, W) in [0, 1].

        Raises:
            ValueError: an unknown mode, or no loss in mode 'loss'.
        """
        first, second = inputs["first"], inputs["second"]
        if mode == "tensor":
            return self.network(first, second)
        if mode == "loss":
            if self.loss is None:
                raise ValueError("loss: this model was built without one, so it can predict but not train")
            terms = self.loss.terms(self.network(first, second), first, second)
            return {f"loss_{name}": value for name, value in terms.items()}
        if mode == "predict":
            samples = data_samples or [FusionDataSample() for _ in first]
            for sample, image in zip(samples, self.fuse(first, second)):
                sample.pred_image = image
            return samples
        raise ValueError(f"mode: expected 'tensor', 'loss' or 'predict', found {mode!r}")

    @torch.no_grad()
    def fuse(
        self, first: Tensor, second: Tensor, tiling: Tiling | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Two images (B, c, H, W) in [0, 1], of any size, to one in [0, 1].

        Tiles are moved to the network's device one by one; the result lies where the images lie.

        Args:
            tiling: stands in for the model's own.
            progress: called with tiles done and all tiles.

        Raises:
            ValueError: the images differ in shape.
        """
        tiling, network = tiling or self.tiling, on_its_device(self.network)
        if tiling is None:
            fused = fuse_as_published(network, first, second)
        else:
            fused = fuse_in_tiles(network, first, second, tiling, progress)
        return fused.float().clamp(0, 1)

    def baselines(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What needs no network: the mean of both images, and the brighter of both at every pixel."""
        first, second = inputs["first"], inputs["second"]
        return {"mean": (first + second) / 2, "maximum": torch.maximum(first, second)}


def on_its_device(network: nn.Module) -> Callable[..., Tensor]:
    """The network, for images that lie elsewhere: they are moved to it, and its result to them."""
    device = next(network.parameters()).device
    return lambda *images: network(*(image.to(device) for image in images)).to(images[0].device)
