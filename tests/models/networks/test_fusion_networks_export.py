"""torch.compile takes the fusion networks as one graph, and torch.export with free sizes."""

import pytest
import torch
from torch import Tensor

from mamba_vision.registry import MODELS


def inputs(name: str, height: int, width: int) -> tuple[Tensor, Tensor]:
    if name == "FusionMamba":
        return torch.rand(1, 4, height, width), torch.rand(1, 1, 4 * height, 4 * width)
    return torch.rand(1, 1, height, width), torch.rand(1, 1, height, width)


def free_sizes(name: str) -> dict:
    height, width = (torch.export.Dim(side, min=2, max=512) for side in ("height", "width"))
    if name == "FusionMamba":
        return {"ms": {2: height, 3: width}, "pan": {2: 4 * height, 3: 4 * width}}
    return {image: {2: height, 3: width} for image in ("first", "second")}


@pytest.mark.parametrize("name", [pytest.param("FusionMamba", marks=pytest.mark.slow), "MambaDFuse"])
def test_one_graph(name: str) -> None:
    torch._dynamo.reset()
    model = MODELS.build(dict(type=f"mamba_vision.{name}", arch="tiny"))
    given = inputs(name, 4, 6)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), model(*given))


@pytest.mark.parametrize("name", ["FusionMamba", "MambaDFuse"])
def test_exported_graph_takes_other_sizes(name: str) -> None:
    model = MODELS.build(dict(type=f"mamba_vision.{name}", arch="tiny")).eval()
    program = torch.export.export(model, inputs(name, 8, 12), dynamic_shapes=free_sizes(name), strict=False).module()
    for size in ((5, 7), (9, 4)):
        given = inputs(name, *size)
        with torch.no_grad():
            torch.testing.assert_close(program(*given), model(*given), rtol=1e-4, atol=1e-5)
