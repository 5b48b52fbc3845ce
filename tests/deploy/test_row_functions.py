"""Layer norms and GELU of exported graphs: our nodes take their place, and function and kernel are PyTorch's."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from mamba_vision.apis.onnx_tasks import Tensors
from mamba_vision.deploy.finish import add_scan_function, check_model
from mamba_vision.deploy.precision import lower
from mamba_vision.deploy.row_functions import GELU, LAYER_NORM
from mamba_vision.deploy.torch_graph import to_onnx, trace
from mamba_vision.kernels.ordered_scan.exported import OrderWatch


class Rows(nn.Module):
    """What is replaced, and beside it what is not: GELU of anything else than a linear layer, norms over more axes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.wide, self.linear = nn.LayerNorm(channels), nn.LayerNorm([3, channels]), nn.Linear(channels, 70)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        linear = self.linear(self.norm(x + self.wide(x)))
        shared = self.linear(x)
        return nn.functional.gelu(linear) + nn.functional.gelu(x.mean()) + nn.functional.gelu(shared) * shared


def export(rows: Rows, channels: int) -> onnx.ModelProto:
    sizes = [{0: "batch"}]
    example = torch.randn(2, 3, channels)
    return to_onnx(trace(Tensors(rows.eval()), [example], sizes, OrderWatch()), ["x"], ["y"], sizes, 20)


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    names = [node.op_type for node in model.graph.node]
    return {name: names.count(name) for name in (LAYER_NORM, "LayerNormalization", GELU, "Gelu")}


@pytest.mark.parametrize("channels", [5, 16, 50])
def test_function_and_kernel_equal_pytorch(channels: int, library: str, tmp_path: Path) -> None:
    rows = Rows(channels)
    model = export(rows, channels)
    add_scan_function(model)
    check_model(model)
    assert kinds(model) == {LAYER_NORM: 1, "LayerNormalization": 1, GELU: 1, "Gelu": 2}
    assert {function.name for function in model.functions} == {LAYER_NORM, GELU}
    x = 3 * torch.randn(7, 3, channels) + 100  # 21 rows: more than one vector of them
    wanted = rows.double()(x.double()).detach().numpy()
    (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    assert np.abs(found - wanted).max() < 1e-6 * np.abs(wanted).max()
    file, inputs = tmp_path / "rows.onnx", tmp_path / "x.npz"
    onnx.save(model, file)
    np.savez(inputs, x=x.numpy())
    for lanes in (4, 8, 16):
        command = [sys.executable, str(Path(__file__).parent / "run_with_library.py"), library, str(file), str(inputs)]
        subprocess.run(command, env={**os.environ, "MAMBA_VISION_LANES": str(lanes)}, check=True)
        assert np.abs(np.load(f"{inputs}.npy") - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_gelu_is_right_everywhere(with_library: ort.SessionOptions) -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 20, "mamba_vision": 2]>
        gelu (float[n, c] x, float[c] bias) => (float[n, c] y) { y = mamba_vision.BiasGelu(x, bias) }""")
    session = ort.InferenceSession(model.SerializeToString(), with_library)
    x = np.linspace(-12, 12, 30_000, dtype=np.float32).reshape(100, 300)
    (found,) = session.run(None, {"x": x - 1, "bias": np.ones(300, np.float32)})
    wanted = nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(found - wanted).max() < 1e-6 and np.abs(found - wanted)[np.abs(x) < 1].max() < 2e-7
    edges = np.float32([[np.inf, np.nan, -100, 1e30]])
    (found,) = session.run(None, {"x": edges, "bias": np.zeros(4, np.float32)})
    assert found[0, 0] == np.inf and np.isnan(found[0, 1]) and found[0, 2] == 0 and found[0, 3] == edges[0, 3]
    with pytest.raises(Exception, match=r"BiasGelu: bias has shape \(4\), expected \(channels\); x has shape \(1, 3\)"):
        session.run(None, {"x": edges[:, :3], "bias": np.zeros(4, np.float32)})


def test_lower_precision_keeps_what_fits() -> None:
    """Where weights are in half precision, norms and GELU stay ONNX's own."""
    rows = Rows(16)
    x = torch.randn(2, 3, 16)
    wanted = rows(x).detach().numpy()
    for precision, count in (("fp16", 0), ("int8", 1)):
        model = lower(onnx.shape_inference.infer_shapes(export(rows, 16)), precision)
        add_scan_function(model)
        assert kinds(model)[LAYER_NORM] == kinds(model)[GELU] == count
        (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
        assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
