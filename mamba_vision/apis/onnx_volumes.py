"""What an ONNX file of a model for volumes holds: the network behind it, its input, and its plan as metadata.

Layouts: windows (B, C, D, H, W), logits (B, K, D, H, W), along the plan's network axes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from mamba_vision.apis.example_inputs import first_convolution
from mamba_vision.apis.onnx_tasks import Exportable, Input, Tensors, config_seal, finest, maybe_fixed, z_scores
from mamba_vision.apis.volume_cascade import low_resolution
from mamba_vision.apis.volume_ensemble import VolumeEnsemble
from mamba_vision.apis.volume_inference import mirror_axes
from mamba_vision.apis.volume_model import checkpoint_hash
from mamba_vision.deploy.torch_graph import ExportError
from mamba_vision.volumes.components import steps_as_json


def volume_segmentor(ensemble: VolumeEnsemble, is_lowres: bool = False) -> Exportable:
    """The folds of one plan: the graph sees one window of a prepared volume, one slice thick for slices.

    Several folds go into one graph, which gives the mean of their logits.

    Args:
        ensemble: of one configuration.
        is_lowres: it is the first network of a cascade, whose findings are not cleaned up.

    Raises:
        ExportError: folds that were mirrored along different axes in training.
        FileNotFoundError: the second network of a cascade without its first one.
    """
    (models,), (plan,), first = ensemble.configurations, ensemble.plans, ensemble.first
    axes = {mirror_axes(model) for model in models}
    if len(axes) > 1:
        raise ExportError(f"folds: mirrored along different axes in training, {sorted(axes)}; export them one by one")
    exportable = volume_network(first.network, plan.patch_size)
    if len(models) > 1:
        members = [Tensors(finest(model.network)) for model in models]
        exportable = replace(exportable, module=Tensors(Mean(members)))
    (volume,) = exportable.inputs
    if first.slicewise:
        free = {axis: name for axis, name in volume.free.items() if axis != 2}
        volume = replace(volume, free=free)
        exportable = replace(exportable, module=Slices(exportable.module))
    if plan.cascaded:
        volume = replace(volume, values=_with_previous(len(plan.channels)))
        exportable = replace(exportable, lowres=volume_segmentor(low_resolution(first), is_lowres=True))
    steps = () if is_lowres else ensemble.usual_steps
    exportable.metadata.update(
        plan=plan.to_dict(), labels=list(plan.labels), mirror_axes=list(axes.pop()),
        postprocessing=steps_as_json(steps), overlap=0.5, training_config=config_seal(first.cfg),
        weights=[{"file": model.checkpoint.name, "sha256": checkpoint_hash(model.checkpoint)} for model in models],
    )  # fmt: skip
    return replace(exportable, inputs=(volume,))


class Mean(nn.Module):
    """The mean of what several networks say."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *inputs: Tensor) -> Tensor:
        total = self.members[0](*inputs)
        for member in self.members[1:]:
            total = total + member(*inputs)
        return total / len(self.members)


class Slices(nn.Module):
    """A network of pictures on windows of one slice: (B, C, 1, H, W) to (B, K, 1, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:  # as Tensors has it, which the exporter's shapes are written for
        (windows,) = inputs
        return self.network(windows.squeeze(2)).unsqueeze(2)


def volume_network(network: nn.Module, size: tuple[int, ...]) -> Exportable:
    """A 3-D segmentation network alone: it has no plan, so it takes windows, and not scans."""
    metadata = {"task": "volume_segmentation", "labels": None, "plan": None, "mirror_axes": []}
    channels = first_convolution(network).in_channels
    free = {0: "batch", 2: "depth", 3: "height", 4: "width"}
    volume = Input("volume", lambda sides: (channels, *sides), free, z_scores)
    return maybe_fixed(network, Exportable(Tensors(finest(network)), (volume,), "logits", size, metadata))


def _with_previous(channels: int):
    """Examples of what a cascade's second network sees: so many channels, and behind them classes, one-hot."""

    def values(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        array = z_scores(shape, rng)
        classes = np.clip(array[:, :1] + 1, 0, shape[1] - channels).astype(int)  # 0 is background
        array[:, channels:] = classes == np.arange(1, shape[1] - channels + 1)[:, None, None, None]
        return array

    return values
