"""Norms in exported graphs: right for groups, channels and whole images, and exact where ONNX Runtime's own are not."""

import os
import subprocess
import sys
from pathlib import Path

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


def model_of(groups: int) -> bytes:
    """One node; no size is told."""
    floats = onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info(name, floats, None) for name in INPUTS]
    node = helper.make_node(OPERATOR, INPUTS, ["y"], domain=DOMAIN, groups=groups, epsilon=1e-5)
    graph = helper.make_graph([node], "norm", given, [helper.make_tensor_value_info("y", floats, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    add_scan_function(model)
    return model.SerializeToString()


@pytest.fixture(params=["standard", "library"])
def options(request: pytest.FixtureRequest) -> ort.SessionOptions:
    return request.getfixturevalue("with_library") if request.param == "library" else ort.SessionOptions()


def run(options: ort.SessionOptions, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    session = ort.InferenceSession(model_of(groups), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(INPUTS, (x, weight, bias))))[0]


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("size", [(7, 5), (3, 1, 4), (1, 1), (61, 83)])
def test_groups(groups: int, size: tuple[int, ...], options: ort.SessionOptions) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 6, *size), torch.rand(6) + 0.5, torch.randn(6)
    expected = F.group_norm(x.double(), groups, weight.double(), bias.double()).float()
    found = torch.from_numpy(run(options, *(t.numpy() for t in (x, weight, bias)), groups))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_exact_over_a_million_voxels(options: ort.SessionOptions, threads: int) -> None:
    options.intra_op_num_threads = threads
    x = torch.randn(1, 1, 96, 96, 96, generator=torch.Generator().manual_seed(0)) + 3
    expected = F.instance_norm(x.double()).numpy()
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    found = run(options, x.numpy(), one, none, 1)
    assert np.abs(found - expected).max() < 3e-6  # InstanceNormalization: 5e-5


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_the_kernel_is_exact_far_from_zero_and_over_edges(lanes: int, library: str, tmp_path: Path) -> None:
    """Blocks are added up about the mean of the one before, which lies far away at an edge."""
    steps = np.repeat(np.float32([900, 1000, 1000, 1100]), 40_001) + np.sin(np.arange(160_004, dtype=np.float32))
    x = np.stack([steps, steps + 5000]).reshape(1, 2, 4, 40_001)
    model, arrays = tmp_path / "norm.onnx", tmp_path / "x.npz"
    model.write_bytes(model_of(2))
    np.savez(arrays, x=x, weight=np.ones(2, np.float32), bias=np.zeros(2, np.float32))
    command = [sys.executable, str(Path(__file__).parent / "run_with_library.py"), library, str(model), str(arrays)]
    subprocess.run(command, env={**os.environ, "MAMBA_VISION_LANES": str(lanes)}, check=True)
    wide = x.astype(np.float64)
    centred = wide - wide.mean((2, 3), keepdims=True)
    expected = centred / np.sqrt((centred**2).mean((2, 3), keepdims=True) + 1e-5)
    assert np.abs(np.load(f"{arrays}.npy") - expected).max() < 1e-6


def test_the_kernel_refuses_what_it_cannot_norm(with_library: ort.SessionOptions) -> None:
    x, vector = np.ones((1, 6, 4, 4), np.float32), np.ones(6, np.float32)
    with pytest.raises(
        Exception, match=r"x has shape \(1, 6, 4\), expected \(batch, channels, .* of four axes or more"
    ):
        run(with_library, x[..., 0], vector, vector, 2)
    with pytest.raises(Exception, match=r"x has shape \(1, 6, 4, 4\), expected channels that 4 groups divide"):
        run(with_library, x, vector, vector, 4)
    with pytest.raises(Exception, match="expected channels that 0 groups divide"):
        run(with_library, x, vector, vector, 0)
    with pytest.raises(Exception, match=r"bias has shape \(5\), expected \(channels\); x has shape"):
        run(with_library, x, vector, vector[1:], 2)
    assert run(with_library, x[:0], vector, vector, 2).shape == (0, 6, 4, 4)


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
