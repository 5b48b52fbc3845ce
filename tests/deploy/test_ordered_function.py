"""The scan along orders as one ONNX node: its function and the operator library's kernel, against the reference."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from mamba_vision.deploy.finish import add_scan_function, check_model
from mamba_vision.deploy.ordered_function import INPUTS
from mamba_vision.kernels import ordered_scan, use_backend

AXES = dict(
    x=("b", "T", "E"), order=("o", "K", "T"), dt=("b", "T", "K", "R"), dt_weight=("K", "E", "R"), A=("K", "E", "N"),
    B=("b", "T", "K", "N"), C=("b", "T", "K", "N"), D=("K", "E"), dt_bias=("K", "E"),
)  # fmt: skip


def model_of(rates: np.ndarray) -> onnx.ModelProto:
    """One node; A is part of the file."""
    node = helper.make_node("OrderedScan", INPUTS, ["y"], domain="mamba_vision")
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "order" else TensorProto.FLOAT, [f"{side}_{name}" for side in axes]
        )
        for name, axes in AXES.items()
        if name != "A"
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "T", "E"])
    graph = helper.make_graph([node], "scan", inputs, [result], [onnx.numpy_helper.from_array(rates, "A")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    add_scan_function(model)
    check_model(model)
    return model


def example(states: int, batch: int, tokens: int, channels: int, own: bool, rank: int = 3) -> dict[str, np.ndarray]:
    sizes = dict(b=batch, T=tokens, E=channels, K=3, R=rank, N=states)
    rng = np.random.default_rng(tokens)
    made = {
        name: rng.standard_normal([sizes[side] for side in axes]).astype(np.float32)
        for name, axes in AXES.items()
        if name != "order"
    }
    made["A"] = -np.abs(made["A"]) - 0.1
    made["order"] = np.stack([[rng.permutation(tokens) for _ in range(3)] for _ in range(batch if own else 1)])
    return made


def expected(arrays: dict[str, np.ndarray]) -> np.ndarray:
    given = {name: torch.from_numpy(array) for name, array in arrays.items()}
    given = {name: t if name == "order" else t.double() for name, t in given.items()}
    order = given.pop("order")
    with use_backend("reference"):
        return ordered_scan(**given, order=order if len(order) > 1 else order[0], rows="tokens").numpy()


def run(session: ort.InferenceSession, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return session.run(None, {name: array for name, array in arrays.items() if name != "A"})[0]


@pytest.mark.parametrize("kind", ["standard", "library"])
@pytest.mark.parametrize("states", [1, 5])
def test_the_node_equals_the_reference(states: int, kind: str, request: pytest.FixtureRequest) -> None:
    options = request.getfixturevalue("with_library") if kind == "library" else ort.SessionOptions()
    for batch, tokens, channels, own in ((1, 1, 4, False), (2, 7, 20, True), (2, 70, 20, False), (1, 100, 17, False)):
        arrays = example(states, batch, tokens, channels, own)
        session = ort.InferenceSession(model_of(arrays["A"]).SerializeToString(), options)
        wanted = expected(arrays)
        assert np.abs(run(session, arrays) - wanted).max() <= 3e-6 * np.abs(wanted).max()


def test_the_library_refuses_what_it_cannot_read(with_library: ort.SessionOptions) -> None:
    arrays = example(1, 2, 7, 4, False)
    session = ort.InferenceSession(model_of(arrays["A"]).SerializeToString(), with_library)
    with pytest.raises(Exception, match="order has a number that is no token's"):
        run(session, {**arrays, "order": arrays["order"] + 1})
    with pytest.raises(Exception, match=r"dt has shape \(2, 7, 2, 3\), expected \(2, 7, 3, 3\); x has shape"):
        run(session, {**arrays, "dt": arrays["dt"][:, :, :2]})
    with pytest.raises(Exception, match=r"order has shape \(1, 3, 6\), expected \(1 or batch, orders, tokens\)"):
        run(session, {**arrays, "order": arrays["order"][:, :, :6]})
