"""Segmentation of volumes as an MMEngine model: a network, a loss and a sliding window, each of its own."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from monai.inferers import SlidingWindowInferer
from torch import nn

from mamba_vision.registry import MODELS, TASK_UTILS
from mamba_vision.structures import VolumeDataSample

TASK_UTILS.register_module(name="SlidingWindowInferer", module=SlidingWindowInferer)

Inferer = Callable[[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]


@MODELS.register_module()
class VolumeSegmentor(BaseModel):
    """Classes of every voxel: exclusive ones, or regions that overlap and paint one class each.

    Args:
        network: config (or module) that maps (B, C, *S) to logits (B, K, *S), or to a list of them, finest first.
        loss: config (or module) called as loss(logits, label).
        inferer: config (or callable) called as inferer(inputs, network), which applies the network to volumes larger
            than a patch, e.g. MONAI's SlidingWindowInferer; without it the network sees the whole volume.
        mirror_axes: axes of S; logits are averaged over all mirrored copies in prediction.
        plan: how scans were prepared for this network: the dict, or the JSON file that tools/plan.py wrote. It goes
            into every checkpoint, because weights without it are of no use on new scans; its `patch_size` is then the
            inferer's `roi_size`, which is what was trained, also where a configuration was edited after planning.
        slicewise: the network has one axis less than the volumes and sees their slices along the first axis; windows
            are then one slice thick. `mirror_axes` count the volume's axes.
        paints: the class that each output (a region) paints where its logit is positive, one over the other; None:
            classes exclude one another, and the highest logit wins.
    """

    def __init__(
        self,
        network: dict | nn.Module,
        loss: dict | nn.Module | None = None,
        inferer: dict | Inferer | None = None,
        mirror_axes: Sequence[int] = (),
        plan: Mapping[str, Any] | str | Path | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
        slicewise: bool = False,
        paints: Sequence[int] | None = None,
    ) -> None:
        preprocessor = data_preprocessor or {"type": "mamba_vision.VolumePreprocessor"}
        super().__init__(MODELS.build(preprocessor) if isinstance(preprocessor, Mapping) else preprocessor, init_cfg)
        self.network = MODELS.build(network) if isinstance(network, Mapping) else network
        self.loss = MODELS.build(loss) if isinstance(loss, Mapping) else loss
        self.inferer = _build_inferer(inferer)
        self.mirror_axes = tuple(int(axis) for axis in mirror_axes)
        self.slicewise = slicewise
        self.paints = None if paints is None else tuple(int(number) for number in paints)
        self.plan = _read_plan(plan)
        if self.plan and isinstance(inferer, Mapping) and "roi_size" in inferer:
            self.plan["patch_size"] = [int(side) for side in inferer["roi_size"]]

    def forward(
        self, inputs: torch.Tensor, data_samples: list[VolumeDataSample] | None = None, mode: str = "tensor"
    ) -> torch.Tensor | list | dict:
        """`inputs` (B, C, *S). Mode 'tensor': the network's own output; 'loss': dict(loss=scalar), from the samples'
        `gt_label`; 'predict': the samples with `pred_label` (*S).

        Raises:
            ValueError: an unknown mode, or no truth or no loss in mode 'loss'.
        """
        if mode == "tensor":
            return self.network(inputs)
        if mode == "loss":
            return self._loss(inputs, data_samples)
        if mode == "predict":
            return self._predict(inputs, data_samples)
        raise ValueError(f"mode: expected 'tensor', 'loss' or 'predict', found {mode!r}")

    def _loss(self, inputs: torch.Tensor, data_samples: list[VolumeDataSample] | None) -> dict[str, torch.Tensor]:
        if self.loss is None:
            raise ValueError("loss: this model was built without one, so it can predict but not train")
        if not data_samples or any("gt_label" not in sample for sample in data_samples):
            raise ValueError("data_samples: mode 'loss' needs a sample with gt_label for every input")
        label = torch.stack([sample.gt_label for sample in data_samples])
        return {"loss": self.loss(self.network(inputs), label)}

    @torch.no_grad()
    def _predict(self, inputs: torch.Tensor, data_samples: list[VolumeDataSample] | None) -> list[VolumeDataSample]:
        labels = self.classes_of(self.predict_logits(inputs))
        samples = data_samples or [VolumeDataSample() for _ in labels]
        for sample, label in zip(samples, labels):
            sample.pred_label = label
        return samples

    def classes_of(self, logits: torch.Tensor) -> torch.Tensor:
        """Class numbers (B, *S) int16 of logits (B, K, *S)."""
        if self.paints is None:
            return logits.argmax(1).to(torch.int16)
        painted = torch.zeros_like(logits[:, 0], dtype=torch.int16)
        for region, number in enumerate(self.paints):
            painted[logits[:, region] > 0] = number
        return painted

    def predict_logits(
        self, inputs: torch.Tensor, inferer: Inferer | None = None, mirror_axes: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Logits (B, K, *S) of whole volumes (B, C, *S), by the inferer, averaged over mirrored copies.

        `inferer` and `mirror_axes` stand in for the model's own.
        """
        axes = self.mirror_axes if mirror_axes is None else tuple(mirror_axes)
        inferer = inferer or self.inferer
        flips = [flip for n in range(len(axes) + 1) for flip in combinations([axis + 2 for axis in axes], n)]

        def mirrored(windows: torch.Tensor) -> torch.Tensor:
            total = self._on_windows(windows)
            for flip in flips[1:]:
                total = total + self._on_windows(windows.flip(flip)).flip(flip)
            return total / len(flips) if len(flips) > 1 else total

        with self._finest_only():
            return mirrored(inputs) if inferer is None else inferer(inputs, mirrored)

    def _on_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """The network on windows (B, C, *S); those of one slice without their first axis, if it works on slices."""
        return self.network(windows.squeeze(2)).unsqueeze(2) if self.slicewise else self.network(windows)

    @contextmanager
    def _finest_only(self) -> Iterator[None]:
        """The network without its deep supervision outputs, which prediction has no use for."""
        before = getattr(self.network, "deep_supervision", None)
        if before:
            self.network.deep_supervision = False
        try:
            yield
        finally:
            if before:
                self.network.deep_supervision = before


def _build_inferer(inferer: dict | Inferer | None) -> Inferer | None:
    if not isinstance(inferer, Mapping):
        return inferer
    settings = copy.deepcopy(dict(inferer))
    if str(settings.get("type", "")).endswith("SlidingWindowInferer"):
        # MONAI's defaults (no weighting, a quarter overlap) are not what medical pipelines mean by a sliding window.
        settings = {"overlap": 0.5, "mode": "gaussian", "sigma_scale": 0.125, **settings}
    return TASK_UTILS.build(settings)


def _read_plan(plan: Mapping[str, Any] | str | Path | None) -> dict[str, Any] | None:
    if plan is None or isinstance(plan, Mapping):
        return None if plan is None else dict(plan)
    path = Path(plan)
    if not path.is_file():
        raise ValueError(f"plan: {path} does not exist; tools/plan.py makes it from a folder of scans")
    return json.loads(path.read_text(encoding="utf-8"))
