"""Compare the scans of the CUDA operator library with the functions behind a model, which the CPU provider runs.

python run_on_cuda.py LIBRARY, with onnx, onnxruntime-gpu and NumPy; prints what it compared.
"""

import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from mamba_vision.deploy.finish import add_scan_function

TOKEN = dict(u="bLD", delta="bLD", A="DN", B="bLGN", C="bLGN", D="D", z="bLD", delta_bias="D")
ORDERED = dict(x="bLE", order="oKL", dt="bLKR", dt_weight="KER", A="KEN", B="bLKN", C="bLKN", D="KE", dt_bias="KE")
# batch, steps, channels, groups or orders, states, optional inputs or whether each has its own orders
TOKEN_CASES = [
    (1, 1, 4, 1, 16, "Dzb"), (2, 197, 384, 1, 16, "Dzb"), (2, 70, 96, 3, 5, "Db"), (1, 3000, 40, 1, 16, "zb"),
    (2, 1000, 33, 3, 1, "b"), (1, 700, 64, 1, 40, "D"), (1, 40000, 96, 1, 16, "Dzb"), (3, 128, 32, 1, 1, ""),
]  # fmt: skip
ORDERED_CASES = [
    (1, 1, 4, 2, 1, False), (2, 49, 96, 4, 1, True), (1, 3136, 96, 4, 1, False), (2, 4096, 60, 4, 16, False),
    (2, 100, 33, 3, 40, True),
]  # fmt: skip


def model_of(operator: str, shapes: dict[str, str], given: list[str], arrays: dict[str, np.ndarray], **attributes):
    names = [name if name in given else "" for name in shapes]
    while not names[-1]:
        names.pop()
    node = helper.make_node(operator, names, ["y"], domain="mamba_vision", **attributes)
    types = {"order": TensorProto.INT64}
    inputs = [
        helper.make_tensor_value_info(
            name, types.get(name, TensorProto.FLOAT), [f"{side}_{name}" for side in shapes[name]]
        )
        for name in names
        if name not in ("A", "")
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list("bLD"))
    graph = helper.make_graph([node], "scan", inputs, [result], [onnx.numpy_helper.from_array(arrays["A"], "A")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    add_scan_function(model)
    return model


def arrays_of(shapes: dict[str, str], sizes: dict[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(sum(sizes.values()))
    sides = {name: [sizes[side] for side in axes] for name, axes in shapes.items()}
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sides.items()}
    made["A"] = -np.abs(made["A"]) - 0.1
    if "order" in made:
        made["order"] = np.stack([[rng.permutation(sizes["L"]) for _ in range(sizes["K"])] for _ in range(sizes["o"])])
    return made


def compare(library: str, model: onnx.ModelProto, arrays: dict[str, np.ndarray], what: str) -> None:
    options = ort.SessionOptions()
    options.register_custom_ops_library(library)
    options.log_severity_level = 3
    content = model.SerializeToString()
    on_gpu = ort.InferenceSession(content, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    if on_gpu.get_providers()[0] != "CUDAExecutionProvider":
        raise SystemExit("no CUDA provider")
    on_cpu = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    feeds = {one.name: arrays[one.name] for one in on_cpu.get_inputs()}
    (expected,) = on_cpu.run(None, feeds)
    for _ in range(2):
        (found,) = on_gpu.run(None, feeds)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{what}: {error:.1e}", flush=True)
    if not error < 5e-6:
        raise SystemExit(f"{what}: differs")


def main(library: str) -> None:
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    for case in TOKEN_CASES:
        batch, length, channels, groups, states, optional = case
        arrays = arrays_of(TOKEN, dict(b=batch, L=length, D=channels, G=groups, N=states))
        given = ["u", "delta", "A", "B", "C", *("D" if "D" in optional else "", "z" if "z" in optional else "")]
        given += ["delta_bias"] if "b" in optional else []
        softplus = 1 if "b" in optional else 0
        if not softplus:
            arrays["delta"] = np.abs(arrays["delta"])  # or states grow beyond all bounds
        model = model_of("TokenScan", TOKEN, given, arrays, delta_softplus=softplus)
        compare(library, model, arrays, f"TokenScan {case}")
    for case in ORDERED_CASES:
        batch, tokens, channels, orders, states, own = case
        sizes = dict(b=batch, L=tokens, E=channels, K=orders, N=states, R=6, o=batch if own else 1)
        arrays = arrays_of(ORDERED, sizes)
        compare(library, model_of("OrderedScan", ORDERED, list(ORDERED), arrays), arrays, f"OrderedScan {case}")


if __name__ == "__main__":
    main(sys.argv[1])
