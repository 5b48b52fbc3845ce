"""Image restoration as an MMEngine model: a network, a loss, tiles for large images.

Super-resolution, denoising and removal of artefacts are the same task here: degraded image in, restored image out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from mamba_vision.models.layers.bicubic import bicubic
from mamba_vision.models.tasks.restoration_tiles import Tiling, restore_in_tiles
from mamba_vision.registry import MODELS
from mamba_vision.structures import RestorationDataSample

PREPROCESSOR = {"type": "mamba_vision.ImagePreprocessor"}


@MODELS.register_module()
class ImagePreprocessor(BaseDataPreprocessor):
    """Stacks images (C, H, W) in [0, 1] of one shape and moves them to the device."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """`data`: `inputs`, a list of (C, H, W) or a tensor (B, C, H, W), or a dict of such; `data_samples`, a list or
        None.

        Raises:
            ValueError: images of different shapes in one batch.
        """
        data = self.cast_data(data)
        inputs = data["inputs"]
        if isinstance(inputs, Mapping):
            stacked = {name: _stacked(images, name) for name, images in inputs.items()}
        else:
            stacked = _stacked(inputs, "inputs")
        return {**data, "inputs": stacked, "data_samples": data.get("data_samples")}


def _stacked(images: Tensor | Sequence[Tensor], name: str) -> Tensor:
    if isinstance(images, Tensor):
        return images.float()
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise ValueError(f"{name}: a batch holds images of one shape, found {sorted(shapes)}; use batch_size=1")
    return torch.stack(list(images)).float()


@MODELS.register_module()
class ImageRestorer(BaseModel):
    """Restores images.

    Args:
        network: config (or module) that maps (B, C, H, W) in [0, 1] to (B, C, s * H, s * W), with the attributes
            `upscale` (s) and `in_channels`.
        loss: config (or module) called as loss(restored, truth).
        tiling: settings of `Tiling` for prediction; None: images go through the network whole.
        mixup: probability that training pairs are mixed with others of their batch, by Beta(1.2, 1.2) weights
            (Restormer's recipe, arXiv 2111.09881).
        progressive: (until iteration, images, side) in rising order: training batches are cut to so many images and
            random patches of that side of the input, which grow as training goes on (Restormer's recipe).
        data_preprocessor, init_cfg: MMEngine's.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self, network: dict | nn.Module, loss: dict | nn.Module | None = None, tiling: Mapping[str, Any] | None = None,
        mixup: float = 0.0, progressive: Sequence[tuple[int, int, int]] = (),
        data_preprocessor: dict | nn.Module | None = None, init_cfg: dict | None = None,
    ) -> None:  # fmt: skip
        super().__init__(data_preprocessor or PREPROCESSOR, init_cfg)
        if not 0 <= mixup <= 1:
            raise ValueError(f"mixup: expected a probability, found {mixup!r}")
        self.network = MODELS.build(network) if isinstance(network, Mapping) else network
        self.loss = MODELS.build(loss) if isinstance(loss, Mapping) else loss
        self.tiling = None if tiling is None else Tiling(**tiling)
        self.mixup, self.progressive = mixup, tuple(tuple(stage) for stage in progressive)
        ends = [stage[0] for stage in self.progressive]
        if ends != sorted(set(ends)) or any(len(stage) != 3 or min(stage) < 1 for stage in self.progressive):
            raise ValueError(f"progressive: expected rising (until iteration, images, side), found {progressive!r}")

    @property
    def scale(self) -> int:
        """How many times larger results are."""
        return self.network.upscale

    def forward(
        self, inputs: Tensor, data_samples: list[RestorationDataSample] | None = None, mode: str = "tensor"
    ) -> Tensor | list[RestorationDataSample] | dict[str, Tensor]:
        """`inputs` (B, C, H, W). Mode 'tensor': the network's own output; 'loss': dict(loss=scalar), from the samples'
        `gt_image`; 'predict': the samples with `pred_image` (C, s * H, s * W) in [0, 1].

        Raises:
            ValueError: an unknown mode, no truth or no loss in mode 'loss', or a truth of another size than s times
                the input's.
        """
        if mode == "tensor":
            return self.network(inputs)
        if mode == "loss":
            inputs, truth = self._cut(inputs, self._truth(inputs, data_samples))
            inputs, truth = self._mixed(inputs, truth)
            return {"loss": self.loss(self.network(inputs), truth)}
        if mode == "predict":
            samples = data_samples or [RestorationDataSample() for _ in inputs]
            for sample, image in zip(samples, self.restore(inputs)):
                sample.pred_image = image
            return samples
        raise ValueError(f"mode: expected 'tensor', 'loss' or 'predict', found {mode!r}")

    @torch.no_grad()
    def restore(
        self, images: Tensor, tiling: Tiling | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Images (B, C, H, W) in [0, 1], of any size, to (B, C, s * H, s * W) in [0, 1].

        Tiles are moved to the network's device one by one; the result lies where the images lie.

        Args:
            tiling: stands in for the model's own.
            progress: called with tiles done and all tiles.
        """
        tiling = tiling or self.tiling
        device = next(self.network.parameters()).device
        if tiling is None:
            restored = self.network(images.to(device)).to(images.device)
        else:
            restored = restore_in_tiles(
                lambda tile: self.network(tile.to(device)).to(images.device), images, self.scale, tiling, progress
            )
        return restored.float().clamp(0, 1)

    def baselines(self, inputs: Tensor) -> dict[str, Tensor]:
        """What needs no network: the degraded image, interpolated where the result is larger."""
        return {"input" if self.scale == 1 else "bicubic": bicubic(inputs, self.scale)}

    def _truth(self, inputs: Tensor, data_samples: list[RestorationDataSample] | None) -> Tensor:
        if self.loss is None:
            raise ValueError("loss: this model was built without one, so it can predict but not train")
        if not data_samples or any("gt_image" not in sample for sample in data_samples):
            raise ValueError("data_samples: mode 'loss' needs a sample with gt_image for every input")
        truth = torch.stack([sample.gt_image for sample in data_samples])
        want = tuple(self.scale * side for side in inputs.shape[2:])
        if tuple(truth.shape[2:]) != want:
            raise ValueError(
                f"gt_image: found {tuple(truth.shape[2:])} pixels for inputs of {tuple(inputs.shape[2:])}, expected "
                f"{want} for this network's scale {self.scale}"
            )
        return truth

    def _cut(self, inputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The images and patches of the present stage of progressive training."""
        if not self.training or not self.progressive:
            return inputs, truth
        iteration = MessageHub.get_current_instance().get_info("iter", 0)
        left = [stage for stage in self.progressive if iteration < stage[0]] or [self.progressive[-1]]
        _, images, side = left[0]
        side = min(side, *inputs.shape[2:])
        top, column = (int(torch.randint(length - side + 1, ())) for length in inputs.shape[2:])
        s = self.scale
        return (
            inputs[:images, :, top : top + side, column : column + side],
            truth[:images, :, s * top : s * (top + side), s * column : s * (column + side)],
        )

    def _mixed(self, inputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training or torch.rand(()) >= self.mixup:
            return inputs, truth
        share = torch.distributions.Beta(1.2, 1.2).sample().to(inputs)
        other = torch.randperm(len(inputs), device=inputs.device)
        return share * inputs + (1 - share) * inputs[other], share * truth + (1 - share) * truth[other]
