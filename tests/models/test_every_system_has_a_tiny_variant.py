"""Every registered system has a variant that a test can hold: `test` where `tiny` is a published name, else `tiny`."""

import pytest
import torch

from mamba_vision.apis.example_inputs import example_inputs, usual_size
from mamba_vision.apis.model_names import variants
from mamba_vision.registry import MODELS

ROOMS = ("mamba_vision.models.backbones.", "mamba_vision.models.networks.")
MODELS.import_from_location()
SYSTEMS = sorted(name for name, system in MODELS.module_dict.items() if system.__module__.startswith(ROOMS))
ARCHS = {variant.system.__name__: set() for variant in variants().values()}
for _variant in variants().values():
    ARCHS[_variant.system.__name__].add(_variant.options["arch"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_builds_from_the_registry_and_computes(name):
    assert ARCHS.get(name), f"{name} has no table of variants (ARCHS)"
    arch = "test" if "test" in ARCHS[name] else "tiny"
    assert arch in ARCHS[name], f"{name} has neither 'test' nor 'tiny' among {sorted(ARCHS[name])}"
    model = MODELS.build({"type": f"mamba_vision.{name}", "arch": arch}).eval()
    assert sum(value.numel() for value in model.parameters()) < 4e6
    size = (32,) * len(usual_size(model))
    empty = example_inputs(model, size, device="cpu")
    inputs = [torch.rand_like(one) if one.is_floating_point() else torch.zeros_like(one) for one in empty]
    with torch.no_grad():
        outputs = model(*inputs)
    for output in outputs if isinstance(outputs, (tuple, list)) else [outputs]:
        assert output.shape[0] == 1
        assert output.isfinite().all()
