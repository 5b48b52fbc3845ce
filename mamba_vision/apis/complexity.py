"""What a model costs: parameters, multiply-adds and the operations of its scans, without computing anything."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mamba_vision.kernels.flops import ordered_product_flops, ordered_recurrence_flops, selective_scan_flops

CONVENTION = (
    "FLOPs = multiply-adds of convolutions and matrix products (one each) + operations of the scans;\n"
    "a scan over L steps of D channels with N states takes 9*L*D*N, L*D for the skip D*u, L*D for the gate z,\n"
    "once for each direction. The Mamba-2 form runs as matrix products and is counted as these."
)


@dataclass(frozen=True)
class Complexity:
    """The cost of one forward pass, see `CONVENTION`.

    Attributes:
        parameters: numbers that training may change.
        multiply_adds: of convolutions and matrix products.
        scan: operations of the recurrences.
    """

    parameters: int
    multiply_adds: int
    scan: int

    @property
    def flops(self) -> int:
        """What papers on vision Mamba report as FLOPs."""
        return self.multiply_adds + self.scan


def complexity(model: nn.Module, *inputs: Tensor) -> Complexity:
    """Parameters and operations of `model(*inputs)`.

    Nothing is computed: a copy of the model on PyTorch's meta device, without weights, is run.

    Args:
        model: any module, on any device.
        inputs: tensors on any device; those of `example_inputs` take no memory.

    Raises:
        ValueError: the model cannot take these inputs.
    """
    parameters = sum(value.numel() for value in model.parameters())
    on_meta = all(value.device.type == "meta" for value in model.state_dict().values())
    model = (model if on_meta else copy.deepcopy(model).to("meta")).eval()
    products, scan = _run(model, [x.to("meta") for x in inputs])
    return Complexity(parameters, products // 2, scan)


def _run(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[int, int]:
    """(operations of all products, 2 a multiply-add; operations of all recurrences)."""
    ops, scans = torch.ops.mamba_vision, []

    def selective_scan(*shapes, **_) -> int:
        scans.append(selective_scan_flops(*shapes))
        return 0

    def ordered_scan(*shapes, **_) -> int:
        scans.append(ordered_recurrence_flops(*shapes))
        return ordered_product_flops(*shapes)

    counts = {ops.selective_scan: selective_scan, ops.ordered_scan: ordered_scan}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=counts) as counter:
        try:
            model(*inputs)
        except (RuntimeError, ValueError) as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
            raise ValueError(f"{type(model).__name__} does not take inputs of shape {shapes}: {error}") from error
    return counter.get_total_flops(), sum(scans)
