"""The scan as an ONNX function: the recurrence itself, for every set of optional inputs; nodes brought to one form."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from mamba_vision.apis.onnx_tasks import Tensors
from mamba_vision.deploy.finish import add_scan_function, check_model
from mamba_vision.deploy.scan_function import OPERATOR, VERSION
from mamba_vision.deploy.torch_graph import to_onnx, trace
from mamba_vision.kernels import causal_conv1d, selective_scan, use_backend
from mamba_vision.kernels.ordered_scan.exported import OrderWatch

SHAPES = dict(
    u=("b", "L", "D"), delta=("b", "L", "D"), A=("D", "N"), B=("b", "L", "G", "N"), C=("b", "L", "G", "N"), D=("D",),
    z=("b", "L", "D"), delta_bias=("D",),
)  # fmt: skip


def model_of(scans: list[tuple[dict[str, bool], bool]], states: int) -> onnx.ModelProto:
    """A model whose scans share their inputs; (which optional inputs are given, softplus) of each."""
    nodes, outputs = [], []
    for number, (given, softplus) in enumerate(scans):
        names = [name if given.get(name, True) else "" for name in SHAPES]
        while not names[-1]:
            names.pop()
        outputs.append(f"y{number}")
        nodes.append(
            helper.make_node(OPERATOR, names, outputs[-1:], domain="mamba_vision", delta_softplus=int(softplus))
        )
    used = {name for node in nodes for name in node.input}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [states if side == "N" else side for side in sides])
        for name, sides in SHAPES.items()
        if name in used and name != "A"
    ]
    rates = helper.make_tensor("A", TensorProto.FLOAT, [6, states], -np.linspace(0.1, 3, 6 * states))
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list("bLD")) for name in outputs]
    graph = helper.make_graph(nodes, "scans", inputs, results, [rates])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mamba_vision", VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    add_scan_function(model)
    check_model(model)
    return model


def compare(model: onnx.ModelProto, scans: list[tuple[dict[str, bool], bool]], states: int) -> None:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    A = torch.tensor(-np.linspace(0.1, 3, 6 * states), dtype=torch.float32).reshape(6, states)
    for batch, groups, length in ((1, 1, 1), (2, 3, 9)):
        sizes = dict(b=batch, D=6, L=length, N=states, G=groups)
        arrays = {name: torch.rand([sizes[side] for side in sides]) for name, sides in SHAPES.items()}
        arrays["A"] = A
        names = [one.name for one in session.get_inputs()]
        results = session.run(None, {name: arrays[name].numpy() for name in names})
        for (given, softplus), result in zip(scans, results):
            present = {
                name: value.movedim(1, -1) if "L" in SHAPES[name] else value
                for name, value in arrays.items()
                if given.get(name, True)
            }
            with use_backend("reference"):
                expected = selective_scan(**present, delta_softplus=softplus).mT.numpy()
            assert np.abs(result - expected).max() <= 2e-6 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("states", [1, 5])
def test_every_signature(states: int) -> None:
    for D, z, bias, softplus in itertools.product((False, True), repeat=4):
        scans = [(dict(D=D, z=z, delta_bias=bias), softplus)]
        compare(model_of(scans, states), scans, states)


@pytest.mark.parametrize("states", [1, 3])
def test_scans_of_several_signatures_are_made_alike(states: int) -> None:
    everything, nothing = {}, dict(D=False, z=False, delta_bias=False)
    for scans in (
        [(everything, True), (nothing, True)],
        [(everything, True), (nothing, False)],
        [(nothing, False), (everything, True), (dict(z=False), True), (dict(D=False), False)],
    ):
        model = model_of(scans, states)
        assert len(model.functions) == 1
        compare(model, scans, states)


def test_the_reference_evaluator_runs_the_file() -> None:
    """Not only ONNX Runtime: onnx's own evaluator knows nothing but the standard."""
    from onnx.reference import ReferenceEvaluator

    scans = [({}, True)]
    model = model_of(scans, 3)
    sizes = dict(b=2, D=6, L=4, N=3, G=2)
    rng = np.random.default_rng(0)
    feeds = {
        one.name: rng.uniform(size=[sizes[side] for side in SHAPES[one.name]]).astype(np.float32)
        for one in model.graph.input
    }
    (expected,) = ort.InferenceSession(model.SerializeToString()).run(None, feeds)
    (found,) = ReferenceEvaluator(model).run(None, feeds)
    assert np.allclose(found, expected, atol=1e-5)


class CausalConv(torch.nn.Module):
    """As Mamba's layer has it: of tokens, on a view of them with the channels first."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(channels, width))
        self.register_buffer("bias", torch.randn(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return causal_conv1d(x.transpose(1, 2), self.weight, self.bias, activation="silu").transpose(1, 2)


@pytest.mark.parametrize("width", [2, 4])
def test_convolution_of_function_and_kernel(width: int, library: str, tmp_path: Path) -> None:
    conv = CausalConv(33, width)
    sizes = [{0: "batch", 1: "length"}]
    model = to_onnx(trace(Tensors(conv), [torch.randn(2, 9, 33)], sizes, OrderWatch()), ["x"], ["y"], sizes, 20)
    add_scan_function(model)
    check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("CausalConv") == 1 and "Transpose" not in kinds  # the tokens' own layout
    file, inputs = tmp_path / "conv.onnx", tmp_path / "x.npz"
    onnx.save(model, file)
    for batch, length in ((2, 1), (1, 37), (3, 1000)):
        x = torch.randn(batch, length, 33)
        with use_backend("reference"):
            wanted = conv(x).numpy()
        (found,) = ort.InferenceSession(file).run(None, {"x": x.numpy()})
        assert np.abs(found - wanted).max() < 2e-6
        np.savez(inputs, x=x.numpy())
        for lanes in (4, 8, 16):
            script = Path(__file__).parent / "run_with_library.py"
            command = [sys.executable, str(script), library, str(file), str(inputs)]
            subprocess.run(command, env={**os.environ, "MAMBA_VISION_LANES": str(lanes)}, check=True)
            assert np.abs(np.load(f"{inputs}.npy") - wanted).max() < 2e-6


def test_the_convolution_refuses_other_shapes(with_library: ort.SessionOptions) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20, "mamba_vision": {VERSION}]>
        conv (float[b, l, d] x, float[c, w] weight, float[k] bias) => (float[b, l, d] y)
        {{ y = mamba_vision.CausalConv <group = 5, pads = [3, 0]> (x, weight, bias) }}""")
    session = ort.InferenceSession(model.SerializeToString(), with_library)
    arrays = dict(x=np.ones((1, 7, 5)), weight=np.ones((5, 4)), bias=np.ones(5))
    for name, shape, message in (
        ("weight", (6, 4), r"weight has shape \(6, 4\), expected \(channels, width\); x has shape \(1, 7, 5\)"),
        ("bias", (6,), r"bias has shape \(6\), expected \(channels\)"),
    ):
        given = {key: value.astype(np.float32) for key, value in {**arrays, name: np.ones(shape)}.items()}
        with pytest.raises(Exception, match=message):
            session.run(None, given)


@pytest.mark.parametrize("version", [1, VERSION])
def test_a_node_of_an_older_library_runs_by_its_function(version: int, with_library: ort.SessionOptions) -> None:
    """And older libraries leave our scans alone, as they know this name only, whatever the version of a file."""
    assert OPERATOR != "SelectiveScan"
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20, "mamba_vision": {version}]>
        scan (float[b, d, l] u, float[d, n] A, float[b, n, l] B) => (float[b, d, l] y)
        {{ y = mamba_vision.SelectiveScan (u, u, A, B, B) }}
        <opset_import: ["": 20], domain: "mamba_vision">
        SelectiveScan (u, delta, A, B, C) => (y) {{ y = Neg (u) }}""")
    session = ort.InferenceSession(model.SerializeToString(), with_library)
    u, A, B = (np.ones(shape, np.float32) for shape in ((1, 4, 4), (4, 2), (1, 2, 4)))
    assert (session.run(None, {"u": u, "A": A, "B": B})[0] == -1).all()
