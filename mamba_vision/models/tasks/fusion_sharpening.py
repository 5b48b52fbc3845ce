"""Sharpening an image of many bands by a guide, as an MMEngine model: a network, a loss, tiles for large images."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mamba_vision.models.layers.bicubic import bicubic
from mamba_vision.models.tasks.fusion import on_its_device
from mamba_vision.models.tasks.restoration import PREPROCESSOR
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.models.tasks.sharpening_tiles import guide_scale, sharpen_as_published, sharpen_in_tiles
from mamba_vision.registry import MODELS
from mamba_vision.structures import FusionDataSample


@MODELS.register_module()
class ImageSharpener(BaseModel):
    """Sharpens images: pansharpening, and the fusion of hyperspectral images with a sharper guide.

    Args:
        network: config (or module) that maps (B, bands, h, w) and (B, channels, s * h, s * w) in [0, 1] to
            (B, bands, s * h, s * w), with the attributes `bands`, `guide_channels` and `scale` (s).
        loss: config (or module) called as loss(sharpened, truth).
        peak: counts of a file that 1 stands for, such as 2047 of 11 bits.
        tiling: settings of `Tiling` for prediction, in pixels of the image that is sharpened.
        cut_size: side, in pixels of the guide, of tiles without margin, side by side, as published, for images that
            are larger; goes before `tiling`. Without both, images go through the network whole.
        data_preprocessor, init_cfg: MMEngine's.

    Raises:
        ValueError: a peak that is not positive.
    """

    def __init__(
        self, network: dict | nn.Module, loss: dict | nn.Module | None = None, peak: float = 1.0,
        tiling: Mapping[str, Any] | None = None, cut_size: int | None = None,
        data_preprocessor: dict | nn.Module | None = None, init_cfg: dict | None = None,
    ) -> None:  # fmt: skip
        super().__init__(data_preprocessor or PREPROCESSOR, init_cfg)
        if peak <= 0:
            raise ValueError(f"peak: expected a positive number of counts, found {peak!r}")
        self.network = MODELS.build(network) if isinstance(network, Mapping) else network
        self.loss = MODELS.build(loss) if isinstance(loss, Mapping) else loss
        self.peak, self.cut_size = float(peak), cut_size
        self.tiling = None if tiling is None else Tiling(**tiling)

    @property
    def scale(self) -> int:
        """How many times larger the guide is."""
        return self.network.scale

    def forward(
        self, inputs: dict[str, Tensor], data_samples: list[FusionDataSample] | None = None, mode: str = "tensor"
    ) -> Tensor | list[FusionDataSample] | dict[str, Tensor]:
        """`inputs`: `ms` (B, bands, h, w) and `pan` (B, channels, s * h, s * w). Mode 'tensor': the network's own
        output; 'loss': dict(loss=scalar), from the samples' `gt_image`; 'predict': the samples with `pred_image`
        (bands, s * h, s * w) in [0, 1].

        Raises:
            ValueError: an unknown mode, no truth or no loss in mode 'loss', or another scale than the network's.
        """
        ms, pan = inputs["ms"], inputs["pan"]
        if mode == "tensor":
            return self.network(ms, pan)
        if mode == "loss":
            return {"loss": self.loss(self.network(ms, pan), self._truth(data_samples))}
        if mode == "predict":
            samples = data_samples or [FusionDataSample() for _ in ms]
            for sample, image in zip(samples, self.sharpen(ms, pan)):
                sample.pred_image = image
            return samples
        raise ValueError(f"mode: expected 'tensor', 'loss' or 'predict', found {mode!r}")

    @torch.no_grad()
    def sharpen(
        self, ms: Tensor, pan: Tensor, tiling: Tiling | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """An image (B, bands, h, w) and its guide (B, channels, s * h, s * w) to (B, bands, s * h, s * w), of any size.

        All in [0, 1]. Tiles are moved to the network's device one by one; the result lies where the images lie.

        Args:
            tiling: stands in for the model's own way.
            progress: called with tiles done and all tiles.

        Raises:
            ValueError: the guide is not s times larger.
        """
        if (found := guide_scale(ms, pan)) != self.scale:
            raise ValueError(f"pan: it is {found} times larger than ms, expected {self.scale} times for this network")
        network = on_its_device(self.network)
        if tiling is None and self.cut_size is not None and max(pan.shape[2:]) > self.cut_size:
            sharpened = sharpen_as_published(network, ms, pan, self.cut_size)
        elif tiling is None and (self.tiling is None or self.cut_size is not None):
            sharpened = network(ms, pan)
        else:
            sharpened = sharpen_in_tiles(network, ms, pan, tiling or self.tiling, progress)
        return sharpened.float().clamp(0, 1)

    def baselines(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What needs no network: the image alone, interpolated (EXP in the literature on pansharpening)."""
        return {"bicubic": bicubic(inputs["ms"], self.scale)}

    def _truth(self, data_samples: list[FusionDataSample] | None) -> Tensor:
        if self.loss is None:
            raise ValueError("loss: this model was built without one, so it can predict but not train")
        if not data_samples or any("gt_image" not in sample for sample in data_samples):
            raise ValueError("data_samples: mode 'loss' needs a sample with gt_image for every input")
        return torch.stack([sample.gt_image for sample in data_samples])
