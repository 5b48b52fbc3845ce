"""The networks that a plan can choose, and what each needs to be told: data for the planner, which builds none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mamba_vision.volumes.topology import MOST_FEATURES, Topology, feature_widths


@dataclass(frozen=True)
class PlannedNetwork:
    """One entry of MODELS.

    Attributes:
        arguments: class in mamba_vision.models and what sets the variant apart.
        stages: whether it takes the planned stages (widths, kernels, strides); others have their own.
        divisor: what its patches' sides are multiples of, where it has stages of its own.
        widths: arguments of a network with stages of its own, as multiples of the first width planned (8 or 32).
        dims: numbers of axes that it works on.
        deep_supervision: whether it gives logits of several resolutions in training.
        tied: whether a trained network takes patches of its training size only.
    """

    arguments: dict[str, Any]
    stages: bool = True
    divisor: int = 1
    widths: dict[str, Any] = field(default_factory=dict)
    dims: tuple[int, ...] = (2, 3)
    deep_supervision: bool = True
    tied: bool = False


MODELS = {
    "umamba_bot": PlannedNetwork({"type": "UMamba", "placement": "bot"}),
    "umamba_enc": PlannedNetwork({"type": "UMamba", "placement": "enc"}, tied=True),
    "segmamba": PlannedNetwork(
        {"type": "SegMamba"}, stages=False, divisor=16, widths={"feat_size": (1.5, 3, 6, 12), "hidden_size": 24},
        dims=(3,), deep_supervision=False,
    ),
    "lightm_unet": PlannedNetwork(
        {"type": "LightMUNet"}, stages=False, divisor=8, widths={"init_filters": 1}, deep_supervision=False
    ),
    "monai_unet": PlannedNetwork(
        {"type": "MonaiUNet"}, stages=False, divisor=16, widths={"features": (1, 1, 2, 4, 8, 1)},
        deep_supervision=False,
    ),
    "nnunet": PlannedNetwork({"type": "PlainUNet"}),
}  # fmt: skip


def fit_network(model: str, topology: Topology) -> Topology:
    """The topology with the patch rounded up to what `model` divides."""
    chosen = MODELS[model]
    if chosen.stages:
        return topology
    patch = tuple(math.ceil(side / chosen.divisor) * chosen.divisor for side in topology.patch_size)
    return Topology(patch, topology.strides, topology.kernel_sizes)


def network_arguments(
    model: str, topology: Topology, in_channels: int, outputs: int, base_features: int
) -> dict[str, Any]:
    """What MODELS.build needs, JSON-able.

    Raises:
        ValueError: the network does not work on this many axes.
    """
    chosen, dims = MODELS[model], len(topology.patch_size)
    if dims not in chosen.dims:
        raise ValueError(f"model: {model} works on {chosen.dims[0]} axes only, not in the configuration '2d'")
    shared = {**chosen.arguments, "spatial_dims": dims, "in_channels": in_channels, "num_classes": outputs}
    if not chosen.stages:
        return {**shared, **{name: _scaled(value, base_features) for name, value in chosen.widths.items()}}
    most = min(MOST_FEATURES[dims], base_features * MOST_FEATURES[dims] // 32)
    return {
        **shared,
        "features": list(feature_widths(len(topology.strides), base_features, most)),
        "kernel_sizes": [list(kernel) for kernel in topology.kernel_sizes],
        "strides": [list(stride) for stride in topology.strides],
        "n_blocks": 2,
        "patch_size": list(topology.patch_size),
        "deep_supervision": True,
    }


def _scaled(value: float | Sequence[float], base: int) -> int | list[int]:
    return [round(one * base) for one in value] if isinstance(value, Sequence) else round(value * base)
