"""`Mamba` as code written for mamba_ssm calls it, and as code written for its forks for vision does.

Vim's fork (arXiv 2401.09417) and SegMamba's (arXiv 2401.13560) replace mamba_ssm by packages of the same name whose
`Mamba` takes `bimamba_type`. Here one class serves all three.
"""

from inspect import signature
from typing import Any

from torch import Tensor, nn

from mamba_vision.models.mixers.bidirectional import BidirectionalMamba
from mamba_vision.models.mixers.mamba import Mamba
from mamba_vision.models.mixers.tri_oriented import TriOrientedMamba

_OF_FORKS = ("bimamba_type", "if_divide_out", "if_devide_out", "init_layer_scale", "nslices")
_UNUSED = ("use_fast_path", "layer_idx", "device", "dtype")


class PublishedMamba(Mamba):
    """mamba_ssm's `Mamba`. With a `bimamba_type`, making one gives a layer of another class, with the fork's weights.

    Args:
        bimamba_type: 'none'; 'v1' or 'v2', Vim's (a `BidirectionalMamba`); 'v3', SegMamba's (a `TriOrientedMamba`).
        if_divide_out, if_devide_out: of Vim's, whose versions differ in the spelling.
        init_layer_scale: of Vim's: start of a learned factor on the result.
        nslices: of SegMamba's.
        arguments, options: of `Mamba`.

    Raises:
        ValueError: another `bimamba_type`.
    """

    def __new__(cls, *arguments: Any, bimamba_type: str | None = "none", **options: Any) -> nn.Module:
        if bimamba_type in ("none", None):
            return super().__new__(cls)
        of_fork = {name: options.pop(name) for name in _OF_FORKS if name in options}
        given = dict(signature(Mamba).bind(*arguments, **options).arguments)
        unused = {name: given.pop(name) for name in _UNUSED if name in given}
        if bimamba_type in ("v1", "v2"):
            halve = of_fork.get("if_divide_out", False) or of_fork.get("if_devide_out", False)
            layer = _Vim(bimamba=bimamba_type, halve=halve, layer_scale=of_fork.get("init_layer_scale"), **given)
        elif bimamba_type == "v3":
            layer = _SegMamba(nslices=of_fork.get("nslices", 5), **given)
        else:
            raise ValueError(f"bimamba_type: found {bimamba_type!r}, expected 'none', 'v1', 'v2' or 'v3'")
        return layer.to(device=unused.get("device"), dtype=unused.get("dtype"))

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{name: value for name, value in options.items() if name not in _OF_FORKS})


class _Vim(BidirectionalMamba):
    def forward(self, x_BLC: Tensor, inference_params: None = None) -> Tensor:
        _refuse(inference_params)
        return super().forward(x_BLC)


class _SegMamba(TriOrientedMamba):
    def forward(self, x_BLC: Tensor, inference_params: None = None) -> Tensor:
        _refuse(inference_params)
        return super().forward(x_BLC)


def _refuse(inference_params: object | None) -> None:
    if inference_params is not None:
        raise ValueError("inference_params: a layer that reads its tokens in several orders decodes nothing")
