import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mamba_vision.engine import CpuAmpOptimWrapper, undecayed_parameters
from mamba_vision.registry import MODELS, OPTIM_WRAPPERS


class Scan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(2, 3))
        self.D = nn.Parameter(torch.zeros(2))
        self.Dense = nn.Linear(2, 2)
        self.marked = nn.Parameter(torch.zeros(1))
        self.marked._no_weight_decay = True


def decay(wrapper, model) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(one)]: group["weight_decay"] for group in wrapper.optimizer.param_groups for one in group["params"]
    }


@pytest.mark.parametrize("paramwise", [None, {"bias_decay_mult": 0.0}, {"custom_keys": {"Dense": {"lr_mult": 0.1}}}])
def test_state_space_parameters_are_not_decayed(paramwise):
    model = nn.Sequential(Scan(), nn.Linear(2, 2))
    cfg = {
        "type": "OptimWrapper",
        "constructor": "mamba_vision.MambaOptimWrapperConstructor",
        "optimizer": {"type": "SGD", "lr": 0.1, "weight_decay": 0.5},
    }
    wrapper = build_optim_wrapper(model, {**cfg, "paramwise_cfg": paramwise} if paramwise else cfg)
    found = decay(wrapper, model)
    assert len(found) == len(list(model.parameters()))
    assert found["0.A_log"] == found["0.D"] == found["0.marked"] == 0
    assert found["0.Dense.weight"] == found["1.weight"] == 0.5
    if paramwise is None:
        assert len(wrapper.optimizer.param_groups) == 2
    if paramwise and "bias_decay_mult" in paramwise:
        assert found["1.bias"] == 0


def test_a_model_without_them_has_one_group():
    cfg = {
        "constructor": "mamba_vision.MambaOptimWrapperConstructor",
        "optimizer": {"type": "AdamW", "lr": 0.1},
    }
    assert len(build_optim_wrapper(nn.Linear(2, 2), cfg).optimizer.param_groups) == 1


def test_umamba_has_undecayed_parameters():
    names = undecayed_parameters(MODELS.build({"type": "mamba_vision.UMamba", "arch": "tiny"}))
    assert {name.rpartition(".")[2] for name in names} == {"A_log", "D"}


def test_cpu_amp_computes_in_bfloat16_and_keeps_float32_weights():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(
        {"type": "mamba_vision.CpuAmpOptimWrapper", "clip_grad": {"max_norm": 1}, "optimizer": optimizer}
    )
    assert isinstance(wrapper, CpuAmpOptimWrapper)
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
    assert out.dtype == torch.bfloat16
    before = model.weight.detach().clone()
    wrapper.update_params(out.float().sum())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)
    assert "loss_scaler" not in wrapper.state_dict()
