"""The hook that replays training as CUDA graphs: what it graphs, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mamba_vision.apis.training_options import TrainOptions, configure
from mamba_vision.engine import CudaGraphHook
from mamba_vision.utils import project_folder


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)


def begin(model: nn.Module, **options) -> CudaGraphHook:
    hook = CudaGraphHook(**options)
    hook.before_train(SimpleNamespace(model=model))
    return hook


def test_refused():
    with pytest.raises(ValueError, match="found cpu, expected all parameters on one CUDA device"):
        begin(Model())
    with pytest.raises(ValueError, match="Linear has no part called network or backbone"):
        begin(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Model has no part called neck"):
        begin(Model(), part="neck")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_option_needs_a_gpu():
    config = project_folder("configs") / "vmamba" / "vmamba-micro_digits.py"
    with pytest.raises(ValueError, match="--cuda-graph: found no CUDA GPU"):
        configure(config, TrainOptions(cuda_graph=True))


@pytest.mark.gpu
def test_graphs_last_as_long_as_the_training():
    model = Model().cuda()
    hook = begin(model)
    assert "forward" in model.backbone.__dict__
    hook.after_train(None)
    assert "forward" not in model.backbone.__dict__
