"""Exporting: what is refused, what a failed check leaves behind, precisions, fixed sizes, the tool."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from mamba_vision.apis import onnx_check
from mamba_vision.apis.onnx_benchmark import benchmark
from mamba_vision.apis.onnx_export import export_onnx
from mamba_vision.apis.onnx_tasks import Exportable, FreePool, Input, Tensors, unit_picture
from mamba_vision.deploy import ModelFile
from mamba_vision.deploy.precision import lower
from mamba_vision.deploy.torch_graph import ExportError, to_onnx, trace
from mamba_vision.kernels import ordered_scan, selective_scan
from mamba_vision.kernels.ordered_scan.exported import OrderWatch
from mamba_vision.models.layers.padding import crop_to, pad_to, padded_size
from mamba_vision.scan_orders import Cross
from mamba_vision.utils.paths import project_folder


class Scans(nn.Module):
    """The least that has everything: padding, a cross scan with one state and one with four, a pool, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 5)
        self.mix = nn.ModuleList(nn.Linear(8, 4 * (2 + 2 * states)) for states in (1, 4))
        self.states = (1, 4)
        self.rates = nn.ParameterList(-torch.rand(4, 8, states) - 0.1 for states in self.states)
        self.steps = nn.Parameter(torch.rand(4, 8, 2))
        self.pool = FreePool((1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = tuple(x.shape[2:])
        x = self.wide(pad_to(x, padded_size(size, (2, 2))))
        grid, tokens = tuple(x.shape[2:]), x.flatten(2).transpose(1, 2)
        order = Cross()(grid, x.device).indices
        for project, states, rates in zip(self.mix, self.states, self.rates):
            dt, B, C = project(tokens).unflatten(2, (4, -1)).split([2, states, states], dim=-1)
            tokens = tokens + ordered_scan(tokens, order, dt, self.steps, rates, B, C, rows="tokens")
        pooled = self.pool(tokens.transpose(1, 2).unflatten(2, grid)).flatten(1)
        whole = crop_to(x.repeat_interleave(2, 2).repeat_interleave(2, 3), size).mean((2, 3))
        return self.head(pooled + whole)


def exportable(module: nn.Module, size: tuple[int, int] = (12, 10), **more) -> Exportable:
    image = Input("image", lambda sides: (3, *sides), {0: "batch", 2: "height", 3: "width"}, unit_picture)
    metadata = {"task": "classification", "labels": None, "name": "scans",
                "preprocess": {"mean": [0.0], "std": [255.0], "rgb": True, "steps": []}}  # fmt: skip
    return Exportable(Tensors(module.eval()), (image,), "logits", size, metadata, **more)


def test_sizes_stay_free_and_scans_are_nodes(tmp_path: Path) -> None:
    report = export_onnx(exportable(Scans()), None, tmp_path / "m.onnx")
    assert report.free == ("batch", "height", "width") and report.error < 2e-6 and not report.notes
    model = onnx.load(tmp_path / "m.onnx")
    assert [f.name for f in model.functions] == ["OrderedScan"]
    assert sum(node.op_type == "OrderedScan" for node in model.graph.node) == 2
    assert not any(node.op_type == "ScatterElements" and node.attribute[-1].s == b"add" for node in model.graph.node)
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip
    text = (tmp_path / "m.onnx").read_bytes()
    assert str(project_folder("configs").parent).encode() not in text  # no paths of this machine
    info = ModelFile(tmp_path / "m.onnx").info
    assert torch.__version__.startswith(info["versions"]["torch"]) and info["checks"][1]["inputs"] == [[3, 3, 17, 13]]


@pytest.mark.parametrize("opset", [18])
def test_opsets(tmp_path: Path, opset: int) -> None:
    assert export_onnx(exportable(Scans()), None, tmp_path / "m.onnx", opset=opset).opset == opset
    opsets = {one.domain: one.version for one in onnx.load(tmp_path / "m.onnx").opset_import}
    assert opsets[""] == opset


@pytest.mark.parametrize("precision,limit", [("fp16", 1e-2), ("int8", 0.2)])
def test_precisions(tmp_path: Path, precision: str, limit: float) -> None:
    report = export_onnx(exportable(Scans()), None, tmp_path / "m.onnx", precision=precision)
    assert max(check["fp32_error"] for check in report.checks) < 2e-6 and 0 < report.error < limit
    assert 0 <= report.checks[0]["agreement"] <= 1
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8) in types


def test_sums_by_place_stay_in_float32() -> None:
    """As MambaIRv2 counts its classes; ONNX Runtime has none in half precision."""
    text = """<ir_version: 10, opset_import: ["" : 20]> sums (float[2, 3] x, int64[2, 3] at) => (float[2, 3] y)
        <float[3, 3] weight = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[2, 3] p>
        { p = MatMul(x, weight)  y = ScatterElements <axis = 1, reduction = "add"> (p, at, p) }"""
    model = lower(onnx.parser.parse_model(text), "fp16")
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in model.graph.initializer}
    session = ort.InferenceSession(model.SerializeToString())
    x, at = np.ones((2, 3), np.float32), np.zeros((2, 3), np.int64)
    assert session.run(None, {"x": x, "at": at})[0].tolist() == [[57, 15, 18]] * 2


def test_squares_do_not_overflow_half_precision() -> None:
    """A root mean square norm of values of a thousand, whose squares are beyond 65504."""
    text = """<ir_version: 10, opset_import: ["" : 20]> norm (float[2, 3] x) => (float[2, 3] y)
        <float[3, 3] weight = {1, 0, 0, 0, 1, 0, 0, 0, 1}, float two = {2}, float eps = {0.00001}, int64[1] at = {1},
         float[2, 3] p, float[2, 3] s, float[2, 1] m, float[2, 1] e, float[2, 1] r, float[2, 1] i>
        { p = MatMul(x, weight)  s = Pow(p, two)  m = ReduceMean(s, at)  [plus] e = Add(m, eps)  r = Sqrt(e)
          i = Reciprocal(r)  y = Mul(p, i) }"""
    session = ort.InferenceSession(lower(onnx.parser.parse_model(text), "fp16").SerializeToString())
    x = np.float32([[1000, 2000, -1000], [0.1, 0.2, -0.1]])
    found = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(found, x / np.sqrt((x**2).mean(1, keepdims=True)), rtol=2e-3)


def test_products_between_float32_operators_have_half_the_weights() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]> products (float[2, 3] x) => (float[2, 3] y)
        <float[3, 3] weight = {1, 0, 0, 0, 1, 0, 0, 0, 1}, float[2, 3] a, float[2, 3] p>
        { a = Softmax(x)  [product] p = MatMul(a, weight)  y = Exp(p) }"""
    model = lower(onnx.parser.parse_model(text), "fp16")
    assert [tensor.data_type for tensor in model.graph.initializer] == [onnx.TensorProto.FLOAT16]
    ort.InferenceSession(model.SerializeToString())


def test_a_difference_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = onnx_check.torch_result
    monkeypatch.setattr(onnx_check, "torch_result", lambda found, arrays: 1.001 * honest(found, arrays))
    (tmp_path / "m.onnx").write_bytes(b"what was there before")
    with pytest.raises(ExportError, match=r"differ by 0\.001 of the largest output"):
        export_onnx(exportable(Scans()), None, tmp_path / "m.onnx", dynamic=["batch", "height", "width"])
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]  # and no m.json
    assert (tmp_path / "m.onnx").read_bytes() == b"what was there before"


def test_a_failed_check_names_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_check, "_rounding", lambda found, arrays: 2e-4)
    found, hows = exportable(Scans()), [(1, (12, 10), 0)]
    checks = [{"fp32_error": 3e-4, "beyond": 0.001}]
    plain, to_blame = onnx_check.explain(found, hows, checks)
    assert to_blame
    assert "differ by 0.0003 of the largest output, more than 0.0001, at 0.001 of the values" in plain
    assert "by 0.0002 between single and double precision, as these weights amplify rounding" in plain
    found.module.model.stable_sort = True
    assert "sorts pixels by their likeliest class" in onnx_check.explain(found, hows, checks)[0]


def test_verified_at_three_sizes_and_kept_if_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = export_onnx(exportable(Scans()), None, tmp_path / "m.onnx", verify=True, licence="CC0")
    assert len(report.checks) == 9 and len({str(check["inputs"]) for check in report.checks}) == 3
    assert {check["seed"] for check in report.checks} == {0, 1, 2} and report.checks[0]["agreement"] == 1
    described = json.loads((tmp_path / "m.json").read_text())
    assert described["licence"] == "CC0" and described["operators"]["OrderedScan"] == 2
    assert described["sha256"] == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    assert described["inputs"][0]["shape"] == ["batch", 3, "height", "width"]
    figures = benchmark(exportable(Scans()), tmp_path / "m.onnx", (12, 10), runs=1)
    assert figures["onnx_ms"] > 0 and figures["torch_ms"] > 0 and figures["peak_memory_bytes"] > 2**20
    honest = onnx_check.torch_result
    monkeypatch.setattr(onnx_check, "torch_result", lambda found, arrays: 1.001 * honest(found, arrays))
    report = export_onnx(exportable(Scans()), None, tmp_path / "m.onnx", dynamic=["batch"], keep=True)
    assert report.notes[-1].startswith("kept all the same: ONNX Runtime and PyTorch differ by 0.001")
    monkeypatch.setattr(onnx_check, "_rounding", lambda found, arrays: 2e-4)  # then a fixed size is no better
    report = export_onnx(exportable(Scans()), None, tmp_path / "m.onnx", keep=True)
    assert report.free == ("batch", "height", "width") and "amplify rounding" in report.notes[-1]
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match=r"plan.json: something else has the name of the model's description"):
        export_onnx(exportable(Scans()), None, tmp_path / "plan.onnx")


class FixedByTable(nn.Module):
    """A table for one size: not exportable with free sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.rand(3, 12, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.table).mean((2, 3))


def test_where_the_size_cannot_stay_free(tmp_path: Path) -> None:
    report = export_onnx(exportable(FixedByTable()), None, tmp_path / "m.onnx")
    assert report.free == ("batch",) and "size fixed to 12 x 10" in report.notes[0]
    with pytest.raises(ExportError, match="the PyTorch model does not take 64 x 10"):
        export_onnx(exportable(FixedByTable()), None, tmp_path / "n.onnx", dynamic=["height"])
    fixed = exportable(Scans(), free=False, why_fixed="its weights fit this patch only")
    assert export_onnx(fixed, None, tmp_path / "f.onnx").notes[0].endswith("its weights fit this patch only")
    with pytest.raises(ExportError, match="takes 12 x 10 only: its weights fit"):
        export_onnx(fixed, None, tmp_path / "g.onnx", size=(20, 20))
    with pytest.raises(ExportError, match="the size is fixed to 12 x 10"):
        export_onnx(fixed, None, tmp_path / "g.onnx", dynamic=["height"])


def test_the_torch_export_program_beneath(tmp_path: Path) -> None:
    """It runs with other sizes where PyTorch and this package are, also from a file."""
    module, sizes = Scans().eval(), [{0: "batch", 2: "height", 3: "width"}]
    program = trace(Tensors(module), [torch.rand(2, 3, 12, 10)], sizes, OrderWatch())
    torch.export.save(program, tmp_path / "scans.pt2")
    x = torch.rand(3, 3, 17, 9)
    with torch.no_grad():
        found = torch.export.load(tmp_path / "scans.pt2").module()(x)
        assert torch.allclose(found, module(x), atol=1e-5)


def test_bad_arguments(tmp_path: Path) -> None:
    found = exportable(Scans())
    for change, message in (
        (dict(out=tmp_path / "m.pt"), "ends in .onnx"),
        (dict(opset=7), "opset: expected one of 18"),
        (dict(precision="fp8"), "precision: expected one of fp32"),
        (dict(dynamic=["depth"]), "dynamic: expected some of batch, height, width, found depth"),
        (dict(size=(1, 2, 3)), "size: expected 2 numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            export_onnx(**{"model": found, "checkpoint": None, "out": tmp_path / "m.onnx", **change})
    assert not list(tmp_path.iterdir())


def test_the_tool_says_what_is_wrong(tmp_path: Path) -> None:
    tool = project_folder("tools") / "export_onnx.py"
    run = subprocess.run(
        [sys.executable, tool, "zigma_tiny", "-o", tmp_path / "z.onnx"], capture_output=True, text=True
    )
    assert run.returncode == 2 and "zigma_tiny: models of type ZigMa are not exported: a generator makes" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_aot_inductor(tmp_path: Path) -> None:
    """The program compiled ahead of time, with sizes that stay free."""
    module = Scans().eval()
    sizes = [{0: "batch", 2: "height", 3: "width"}]
    program = trace(Tensors(module), [torch.rand(2, 3, 12, 10)], sizes, OrderWatch())
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "scans.pt2"))
    x = torch.rand(3, 3, 17, 9)
    with torch.no_grad():
        assert torch.allclose(torch._inductor.aoti_load_package(package)(x), module(x), atol=1e-5)


def test_what_has_no_node_is_refused() -> None:
    class Continued(nn.Module):
        def forward(self, *tensors):
            (u,) = tensors
            A, state = -torch.ones(4, 2), torch.ones(1, 4, 2)
            rows = torch.ones(1, 1, 2, u.shape[2])
            return selective_scan(u, u.sigmoid(), A, rows, rows, initial_state=state)

    program = trace(Continued(), [torch.rand(1, 4, 6)], [{}], OrderWatch())
    with pytest.raises(ExportError, match="a scan with an initial state has no ONNX node"):
        to_onnx(program, ["u"], ["y"], [{}], opset=20)
