"""torch.compile takes the networks as one graph, and torch.export with free sizes."""

import pytest
import torch

from mamba_vision.registry import MODELS


@pytest.mark.parametrize("name", ["UMamba", "SegMamba"])
def test_one_graph(name: str) -> None:
    torch._dynamo.reset()
    model = MODELS.build(dict(type=f"mamba_vision.{name}", arch="tiny"))
    model.deep_supervision = False
    x = torch.randn(1, 1, 16, 16, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    compiled(x).square().mean().backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(x).square().mean().backward()
    for key, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(got[key], p.grad, rtol=1e-3, atol=1e-6)


def test_exported_graph_takes_other_sizes() -> None:
    model = MODELS.build(dict(type="mamba_vision.UMamba", arch="tiny_2d")).eval()
    model.deep_supervision = False
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (torch.randn(1, 3, 32, 48),), dynamic_shapes={"x": free})
    x = torch.randn(1, 3, 24, 56)
    torch.testing.assert_close(program.module()(x), model(x))
