"""The scan as an ONNX function: the recurrence itself, for every set of optional inputs; nodes brought to one form."""

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from mamba_vision.deploy.finish import add_scan_function, check_model
from mamba_vision.kernels import selective_scan, use_backend

SHAPES = dict(
    u=("b", "D", "L"), delta=("b", "D", "L"), A=("D", "N"), B=("b", "G", "N", "L"), C=("b", "G", "N", "L"), D=("D",),
    z=("b", "D", "L"), delta_bias=("D",),
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
            helper.make_node("SelectiveScan", names, outputs[-1:], domain="mamba_vision", delta_softplus=int(softplus))
        )
    used = {name for node in nodes for name in node.input}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [states if side == "N" else side for side in sides])
        for name, sides in SHAPES.items()
        if name in used and name != "A"
    ]
    rates = helper.make_tensor("A", TensorProto.FLOAT, [6, states], -np.linspace(0.1, 3, 6 * states))
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list("bDL")) for name in outputs]
    graph = helper.make_graph(nodes, "scans", inputs, results, [rates])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mamba_vision", 1)]
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
            present = {name: value for name, value in arrays.items() if given.get(name, True)}
            with use_backend("reference"):
                expected = selective_scan(**present, delta_softplus=softplus).numpy()
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
