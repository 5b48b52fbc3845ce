"""Segmentation of what prompts mean, as an MMEngine model.

Legend: B batch, K boxes, N points.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mamba_vision.registry import MODELS
from mamba_vision.structures import PromptDataSample

DEEP_WEIGHTS = (1.0, 0.6, 0.4)  # of the result and of the logits of strides 8 and 16


@MODELS.register_module()
class PromptSegmentor(BaseModel):
    """Trains and runs a promptable network.

    Args:
        network: config (or module) called as network(image, boxes, points, labels, box_mask, point_mask, deep=...),
            with `encode` and `decode`, see `ProMamba`.
        loss: config (or module) called as loss(logits, masks).
        scales: factors of which one is drawn for each training batch.
        divisor: sides of scaled batches are rounded to a multiple of this.
        threshold: probability from which a pixel belongs to the mask.
        per_box: predict each box by itself and join the results by their maximum.
        data_preprocessor, init_cfg: MMEngine's.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self, network: dict | nn.Module, loss: dict | nn.Module | None = None, scales: Sequence[float] = (1.0,),
        divisor: int = 32, threshold: float = 0.5, per_box: bool = False,
        data_preprocessor: dict | nn.Module | None = None, init_cfg: dict | None = None,
    ) -> None:  # fmt: skip
        preprocessor = data_preprocessor or {"type": "mamba_vision.PromptPreprocessor"}
        super().__init__(MODELS.build(preprocessor) if isinstance(preprocessor, Mapping) else preprocessor, init_cfg)
        if not scales or min(scales) <= 0 or not 0 < threshold < 1 or divisor < 1:
            found = f"{tuple(scales)}, {threshold} and {divisor}"
            raise ValueError(f"expected scales > 0, 0 < threshold < 1 and divisor >= 1, found {found}")
        self.network = MODELS.build(network) if isinstance(network, Mapping) else network
        self.loss = MODELS.build(loss) if isinstance(loss, Mapping) else loss
        self.scales, self.divisor = tuple(scales), divisor
        self.threshold, self.per_box = threshold, per_box

    def forward(
        self, inputs: Tensor, data_samples: list[PromptDataSample] | None = None, mode: str = "tensor"
    ) -> Tensor | list[PromptDataSample] | dict[str, Tensor]:
        """`inputs` (B, C, H, W), normalized; prompts come in the samples, and may be missing.

        Mode 'tensor': logits (B, 1, H, W). 'loss': losses of the result and of the logits of strides 8 and 16.
        'predict': the samples with `pred_prob` and `pred_mask`, of the size `ori_shape` where a sample has one.

        Raises:
            ValueError: an unknown mode, or mode 'loss' without a loss or masks of the inputs' size.
        """
        if mode == "tensor":
            return self.network(inputs, **batched_prompts(data_samples, inputs.device))
        if mode == "loss":
            return self._losses(inputs, data_samples)
        if mode == "predict":
            samples = data_samples or [PromptDataSample() for _ in inputs]
            probabilities = self.probabilities(self.network.encode(inputs), samples, tuple(inputs.shape[2:]))
            for sample, probability in zip(samples, probabilities):
                size = tuple(sample.get("ori_shape", inputs.shape[2:]))
                resized = F.interpolate(probability[None], size, mode="bilinear", align_corners=False)[0, 0]
                sample.pred_prob, sample.pred_mask = resized, resized >= self.threshold
            return samples
        raise ValueError(f"mode: expected 'tensor', 'loss' or 'predict', found {mode!r}")

    def probabilities(
        self, features: Sequence[Tensor], samples: list[PromptDataSample], size: tuple[int, int]
    ) -> Tensor:
        """(B, 1, H, W) in [0, 1], float32, from the network's features and the samples' prompts; H, W are `size`."""
        prompts = batched_prompts(samples, features[0].device)
        boxes = prompts.get("boxes")
        if not self.per_box or boxes is None or boxes.shape[1] < 2:
            return self.network.decode(features, **prompts, size=size).float().sigmoid()
        best = None
        for number in range(boxes.shape[1]):
            one = slice(number, number + 1)
            own = {**prompts, "boxes": boxes[:, one], "box_mask": prompts["box_mask"][:, one]}
            found = self.network.decode(features, **own, size=size).float().sigmoid()
            # Rows that have no such box keep what they have; without any box the first pass counts.
            valid = own["box_mask"][..., None, None]
            best = found if best is None else torch.where(valid, torch.maximum(best, found), best)
        return best

    def _losses(self, inputs: Tensor, samples: list[PromptDataSample] | None) -> dict[str, Tensor]:
        if self.loss is None:
            raise ValueError("loss: this model was built without one, so it can predict but not train")
        if not samples or any("gt_mask" not in sample for sample in samples):
            raise ValueError("data_samples: mode 'loss' needs a sample with gt_mask for every input")
        masks = torch.stack([sample.gt_mask for sample in samples])[:, None].float()
        if masks.shape[2:] != inputs.shape[2:]:
            raise ValueError(f"gt_mask: found {tuple(masks.shape[2:])} pixels, inputs have {tuple(inputs.shape[2:])}")
        prompts = batched_prompts(samples, inputs.device)
        inputs, masks, prompts = self._scaled(inputs, masks, prompts)
        logits = self.network(inputs, **prompts, deep=True)
        names = ("loss_mask", "loss_stride8", "loss_stride16")
        return {name: weight * self.loss(one, masks) for name, weight, one in zip(names, DEEP_WEIGHTS, logits)}

    def _scaled(
        self, inputs: Tensor, masks: Tensor, prompts: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Inputs, masks and prompts at one of `scales`."""
        scale = self.scales[int(torch.randint(len(self.scales), ()))] if self.training else 1.0
        if scale == 1:
            return inputs, masks, prompts
        size = tuple(max(round(side * scale / self.divisor), 1) * self.divisor for side in inputs.shape[2:])
        across, down = size[1] / inputs.shape[3], size[0] / inputs.shape[2]
        factors = torch.tensor([across, down, across, down], device=inputs.device)
        prompts = dict(prompts)
        if "boxes" in prompts:
            prompts["boxes"] = prompts["boxes"] * factors
        if "points" in prompts:
            prompts["points"] = (prompts["points"] + 0.5) * factors[:2] - 0.5
        inputs = F.interpolate(inputs, size, mode="bilinear", align_corners=False)
        return inputs, F.interpolate(masks, size, mode="nearest"), prompts


def batched_prompts(samples: list[PromptDataSample] | None, device: torch.device) -> dict[str, Tensor]:
    """Boxes and points of samples filled up to the same number, with masks; what nobody has is left out.

    Returns:
        boxes (B, K, 4), box_mask (B, K), points (B, N, 2), labels (B, N), point_mask (B, N), as far as there are any.
    """
    samples = samples or []
    found = {}
    boxes = [sample.get("boxes", torch.zeros(0, 4)) for sample in samples]
    points = [sample.get("points", torch.zeros(0, 2)) for sample in samples]
    labels = [sample.get("labels", torch.zeros(0)) for sample in samples]
    if any(len(one) for one in boxes):
        found["boxes"], found["box_mask"] = _filled(boxes, device)
    if any(len(one) for one in points):
        found["points"], found["point_mask"] = _filled(points, device)
        found["labels"], _ = _filled(labels, device)
    return found


def _filled(rows: list[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    count = max(len(one) for one in rows)
    table = torch.zeros(len(rows), count, *rows[0].shape[1:], device=device)
    mask = torch.zeros(len(rows), count, dtype=torch.bool, device=device)
    for number, one in enumerate(rows):
        table[number, : len(one)] = one.to(table)
        mask[number, : len(one)] = True
    return table, mask
