"""Generation of pictures, latents and clips as an MMEngine model: a network, a transport it learns, a way to sample."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mamba_vision.models.diffusion import Sampler, Transport
from mamba_vision.registry import MODELS


@MODELS.register_module()
class DiffusionGenerator(BaseModel):
    """Learns a path from noise to data by stochastic interpolants (SiT, arXiv 2401.08740; ZigMa, 2403.13802).

    Data are what the preprocessor gives, pictures in [-1, 1] or latents. A network with `num_classes` is told the
    samples' `gt_label`, one with `text_channels` their `text`, (N, text_channels).

    Args:
        network: config (or module) called as network(x, times, condition), such as `ZigMa`.
        transport: options of `Transport`.
        sampler: options of `Sampler`.
        condition_dropout: probability of training a sample without its condition, for guidance: the network must have
            `no_condition`, and for classes a null class. Published: 0.
        guidance: predictions are prediction without condition + guidance * (with - without); 1 is the network as it
            is (classifier-free guidance, arXiv 2207.12598).
        scale: factor from data to what the network sees: 0.18215 for latents of Stable Diffusion's autoencoder.
        data_preprocessor: config; None moves data to the device and stacks them.
        init_cfg: MMEngine's.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    def __init__(
        self,
        network: dict | nn.Module,
        transport: Mapping[str, Any] | None = None,
        sampler: Mapping[str, Any] | None = None,
        condition_dropout: float = 0.0,
        guidance: float = 1.0,
        scale: float = 1.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {"type": "mmengine.ImgDataPreprocessor"}, init_cfg)
        self.network = MODELS.build(network) if isinstance(network, Mapping) else network
        self.transport = _build(Transport, "transport", transport)
        self.sampler = _build(Sampler, "sampler", sampler)
        if not 0 <= condition_dropout <= 1:
            raise ValueError(f"condition_dropout: found {condition_dropout}, expected a number from 0 to 1")
        if not scale > 0:
            raise ValueError(f"scale: found {scale}, expected a number above 0")
        self.condition_dropout, self.guidance, self.scale = condition_dropout, guidance, scale

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[BaseDataElement] | None = None,
        mode: str = "tensor",
        times: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """`inputs` (B, C, H, W), or (B, T, C, H, W) for clips.

        Mode 'tensor': what the network says of the inputs at `times` (B,), by default 0, in its own scale. 'loss':
        dict(loss=scalar). 'predict': the samples with `pred_img`, drawn under the sample's condition in the shape of
        its input, and `gt_img`, that input.

        Raises:
            ValueError: an unknown mode, or samples without the condition that the network wants.
        """
        if mode == "predict":
            return self._predict(inputs, data_samples)
        condition = self.condition_of(data_samples)
        if mode == "tensor":
            times = inputs.new_zeros(len(inputs)) if times is None else times
            return self.network(inputs * self.scale, times, condition)
        if mode == "loss":
            condition = self._thinned(condition)
            losses, _ = self.transport.losses(lambda x, t: self.network(x, t, condition), inputs * self.scale)
            return {"loss": losses.mean()}
        raise ValueError(f"mode: expected 'tensor', 'loss' or 'predict', found {mode!r}")

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        condition: Tensor | None = None,
        sampler: Sampler | None = None,
        guidance: float | None = None,
        draw: Callable[[Tensor], Tensor] = torch.randn_like,
    ) -> Tensor:
        """Data drawn from the model, of the shape of `noise`.

        Args:
            noise: standard normal, (B, C, H, W) or (B, T, C, H, W).
            condition: as the network wants it.
            sampler, guidance: stand in for the model's own.
            draw: the further noise of an SDE, see `Sampler`.
        """
        guidance = self.guidance if guidance is None else guidance
        none = None if guidance == 1 or condition is None else self.network.no_condition(condition)

        def network(x: Tensor, times: Tensor) -> Tensor:
            if none is None:
                return self.network(x, times, condition)
            both = self.network(torch.cat([x, x]), torch.cat([times, times]), torch.cat([condition, none]))
            with_it, without = both.chunk(2)
            return without + guidance * (with_it - without)

        *_, last = (sampler or self.sampler)(self.transport, network, noise, draw)
        return last / self.scale

    def condition_of(self, data_samples: Sequence[BaseDataElement] | None) -> Tensor | None:
        """What the network is told of these samples: (B,) class numbers, (B, N, text_channels) features, or nothing.

        Raises:
            ValueError: a sample lacks it.
        """
        field = "text" if getattr(self.network, "text_channels", 0) else "gt_label"
        if field == "gt_label" and not getattr(self.network, "num_classes", 0):
            return None
        if not data_samples or any(field not in sample for sample in data_samples):
            raise ValueError(f"data_samples: the network wants a sample with {field} for every input")
        values = [torch.as_tensor(sample.get(field)) for sample in data_samples]
        return torch.stack(values) if field == "text" else torch.cat([value.reshape(-1) for value in values])

    def _predict(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None) -> list[BaseDataElement]:
        """The noise of a sample depends on its number in the data set alone, so that pictures of two epochs compare."""
        samples = list(data_samples or [BaseDataElement() for _ in inputs])
        noise = []
        for index, sample in enumerate(samples):
            generator = torch.Generator().manual_seed(int(sample.get("sample_idx", index)))
            noise.append(torch.randn(inputs.shape[1:], generator=generator))
        drawn = self.sample(torch.stack(noise).to(inputs), self.condition_of(data_samples))
        for sample, picture, truth in zip(samples, drawn, inputs):
            sample.pred_img, sample.gt_img = picture, truth
        return samples

    def _thinned(self, condition: Tensor | None) -> Tensor | None:
        if condition is None or not self.condition_dropout:
            return condition
        dropped = torch.rand(len(condition), device=condition.device) < self.condition_dropout
        dropped = dropped.reshape(-1, *[1] * (condition.ndim - 1))
        return torch.where(dropped, self.network.no_condition(condition), condition)


def _build(kind: type, name: str, options: Mapping[str, Any] | None) -> Any:
    try:
        return kind(**(options or {}))
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
