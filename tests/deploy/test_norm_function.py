"""Norms in exported graphs: right for groups, channels and whole images, and exact where ONNX Runtime's own are not."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from torch import nn

from mamba_vision.apis.onnx_tasks import Tensors
from mamba_vision.deploy.finish import add_scan_function, check_model
from mamba_vision.deploy.norm_function import INPUTS, OPERATOR
from mamba_vision.deploy.scan_function import DOMAIN
from mamba_vision.deploy.torch_graph import to_onnx, trace
from mamba_vision.kernels.ordered_scan.exported import OrderWatch


def run(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    floats = onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info(name, floats, None) for name in INPUTS]
    node = helper.make_node(OPERATOR, INPUTS, ["y"], domain=DOMAIN, groups=groups, epsilon=1e-5)
    graph = helper.make_graph([node], "norm", given, [helper.make_tensor_value_info("y", floats, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    add_scan_function(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(INPUTS, (x, weight, bias))))[0]


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("size", [(7, 5), (3, 1, 4), (1, 1)])
def test_groups(groups: int, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 6, *size), torch.rand(6) + 0.5, torch.randn(6)
    expected = F.group_norm(x.double(), groups, weight.double(), bias.double()).float()
    torch.testing.assert_close(torch.from_numpy(run(*(t.numpy() for t in (x, weight, bias)), groups)), expected)


def test_exact_over_a_million_voxels() -> None:
    x = torch.randn(1, 1, 96, 96, 96, generator=torch.Generator().manual_seed(0)) + 3
    expected = F.instance_norm(x.double()).numpy()
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    assert np.abs(run(x.numpy(), one, none, 1) - expected).max() < 3e-6  # InstanceNormalization: 5e-5


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line, self.plane, self.groups = nn.InstanceNorm1d(4), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.groups(self.plane(x) + self.line(x.flatten(2)).view_as(x))


def test_every_norm_of_a_module_becomes_a_node() -> None:
    norms, x, sizes = Norms().eval(), torch.randn(2, 4, 6, 5), [{0: "batch", 2: "height", 3: "width"}]
    model = to_onnx(trace(Tensors(norms), [x], sizes, OrderWatch()), ["x"], ["y"], sizes, 20)
    add_scan_function(model)
    check_model(model)
    assert sum(node.op_type == OPERATOR for node in model.graph.node) == 3
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    other = torch.randn(1, 4, 9, 8)
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": other.numpy()})[0]), norms(other).detach())
