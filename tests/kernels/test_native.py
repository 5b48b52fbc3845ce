"""The C++ scan: how it is built and chosen, every width of vectors, threads, and ONNX Runtime's operator."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from oracle import relative_error, scan_inputs

from mamba_vision.kernels import BackendError, backend_for, ordered_scan, selective_scan, use_backend
from mamba_vision.kernels.native import BuildError, build, build_ort_library, build_torch_library, library
from mamba_vision.kernels.ordered_scan import native_impl


def needs(find):
    """Skip unless `find` finds what a build needs."""
    try:
        find()
        obstacle = ""
    except BuildError as error:
        obstacle = str(error)
    return pytest.mark.skipif(bool(obstacle), reason=obstacle)


needs_compiler = needs(build.find_compiler)
needs_headers = needs(build.ort_include)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAMBA_VISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---- building ----------------------------------------------------------------------------------------------------
def test_without_a_compiler_the_error_names_what_was_tried(monkeypatch, empty_cache):
    monkeypatch.setenv("PATH", str(empty_cache))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BuildError, match=r"no C\+\+ compiler found \(tried c\+\+, g\+\+, clang\+\+\): install one"):
        build_torch_library()
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(BuildError, match=r"tried CXX=no-such-compiler -O1"):
        build_torch_library()


def test_the_backend_says_why_it_cannot_run(empty_cache):
    script = (
        "import torch; from mamba_vision.kernels import *\n"
        "u, A, B = torch.ones(1, 2, 3), -torch.ones(2, 1), torch.ones(1, 1, 3)\n"
        "try: selective_scan(u, u, A, B, B)\n"
        "except BackendError as error: print(error)"
    )
    environment = {**os.environ, "MAMBA_VISION_BACKEND": "native", "CXX": "no-such-compiler"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "backend 'native' was asked for, but its C++ source can't be used: no C++ compiler found" in run.stdout


@needs_compiler
def test_a_failing_compiler_is_quoted_and_leaves_nothing(monkeypatch, empty_cache, caplog):
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-fno-such-flag"))
    with pytest.raises(BuildError, match=r"-fno-such-flag[\s\S]*failed:[\s\S]*no-such-flag"):
        build_torch_library()
    assert not list(empty_cache.iterdir())
    (line,) = caplog.messages  # who waits is told what for
    assert line == f"compiling the C++ scan, once: some ten seconds; it is kept in {empty_cache}"


@needs_compiler
def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAMBA_VISION_CACHE", str(tmp_path / "file/below"))
    with pytest.raises(BuildError, match=r"file/below can't hold the compiled library[\s\S]*MAMBA_VISION_CACHE"):
        build_torch_library()


@needs_compiler
def test_it_is_compiled_once(monkeypatch):
    first = build_torch_library()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert build_torch_library() == first


def test_the_header_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("ORT_INCLUDE", str(tmp_path))
    with pytest.raises(BuildError, match=r"onnxruntime_c_api.h is needed.*there is none in .*--include or the env"):
        build_ort_library()
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime/onnxruntime_c_api.h").write_text("")
    assert build.ort_include() == tmp_path / "onnxruntime"


# ---- choice ------------------------------------------------------------------------------------------------------
def test_ops_without_cpp_run_portably_and_the_reason_is_told():
    with use_backend("native"):
        assert backend_for(torch.ones(1)).name == "native"
        choice = backend_for(torch.ones(1), "causal_conv1d")
        assert choice.name == "portable"
        assert "causal_conv1d has no C++" in choice.reason
        with pytest.raises(BackendError, match="runs on CPUs only: the tensors are on 'meta'"):
            backend_for(torch.ones(1, device="meta"))


@needs_compiler
def test_complex_numbers_run_portably():
    u, A, B = torch.ones(1, 2, 3), -torch.ones(2, 1) + 0j, torch.ones(1, 1, 3) + 0j
    with use_backend("native"):
        assert selective_scan(u, u, A, B, B).shape == u.shape


@needs_compiler
def test_opcheck():
    def leaf(*shape):
        return torch.randn(shape, requires_grad=True)

    u = torch.randn(2, 19, 6).transpose(1, 2).requires_grad_()
    A = (-torch.rand(6, 4)).requires_grad_()
    inputs = (u, leaf(2, 6, 19), A, leaf(2, 2, 4, 19), leaf(6, 4), leaf(6), leaf(2, 6, 19), leaf(6), leaf(2, 6, 4))
    operator = torch.ops.mamba_vision.selective_scan.default
    torch.library.opcheck(operator, (*inputs, True, torch.float32, True, "native"))


# ---- results -----------------------------------------------------------------------------------------------------
# a width of vectors is chosen once in a process
WIDTHS = """
import torch
from oracle import compare, scan_inputs
from mamba_vision.kernels import selective_scan, use_backend

def scan(**inputs):
    return selective_scan(**inputs, delta_softplus=True, return_last_state=True)

with use_backend("native"):
    for state, length, channels in ((16, 70, 34), (1, 33, 6), (5, 64, 16)):
        inputs = scan_inputs(2, channels, length, state)
        compare(scan, inputs)
        compare(scan, {k: v.mT.contiguous().mT if v.dim() > 2 else v for k, v in inputs.items()})
        inputs["delta"] = inputs["delta"] * 60 + 40
        compare(scan, inputs, tolerance=1e-4)
"""


@needs_compiler
@pytest.mark.parametrize("lanes", [4, 8])
def test_narrower_vectors(lanes):
    folders = filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "MAMBA_VISION_LANES": str(lanes), "PYTHONPATH": os.pathsep.join(folders)}
    run = subprocess.run([sys.executable, "-c", WIDTHS], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@needs_compiler
def test_threads_share_the_channels():
    torch.manual_seed(0)
    inputs = {k: v.float().requires_grad_() for k, v in scan_inputs(1, 96, 1100, 16, 1).items()}

    def results():
        y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
        return [y, last, *torch.autograd.grad(y.square().sum() + last.sum(), list(inputs.values()))]

    threads = torch.get_num_threads()
    with use_backend("native"):
        try:
            torch.set_num_threads(1)
            alone = results()
            torch.set_num_threads(3)
            shared, again = results(), results()
        finally:
            torch.set_num_threads(threads)
    for a, b, c in zip(alone, shared, again):
        assert relative_error(b, a) < 1e-6
        assert torch.equal(b, c)


@needs_compiler
def test_calls_from_several_threads():
    inputs = {k: v.float() for k, v in scan_inputs(1, 32, 300, 8, 1).items()}
    with use_backend("native"):
        want = selective_scan(**inputs, delta_softplus=True)
        found = []
        work = lambda: found.append(selective_scan(**inputs, delta_softplus=True))  # noqa: E731
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 2
    assert all(torch.equal(y, want) for y in found)


@needs_compiler
def test_fading_states_become_zero():
    """Numbers too small for float32's normal range are flushed: neither slow nor NaN."""
    u = torch.zeros(1, 16, 400)
    u[..., 0] = 1
    A, B = -torch.ones(16, 4), torch.ones(1, 4, 400)
    with use_backend("native"):
        y, last = selective_scan(u, torch.ones_like(u), A, B, B, return_last_state=True)
    torch.testing.assert_close(y[0, 0, :80], 4 * torch.exp(-torch.arange(80.0)))
    assert not last.any()


@needs_compiler
@pytest.mark.parametrize("state", [1, 6])
def test_whole_orders_in_one_kernel(state, monkeypatch):
    """Without backward; and the ordinary way where a token is missing, or for backward."""
    batch, tokens, channels, rank = 2, 45, 20, 3
    orders = torch.stack([torch.randperm(tokens) for _ in range(3)])
    of_each = torch.stack([orders, orders.flip(1)])
    rows = [torch.randn(batch, tokens, 3, size).requires_grad_() for size in (rank, state, state)]
    dt, B, C = rows
    parameters = dict(
        dt_weight=torch.randn(3, channels, rank), A=-torch.rand(3, channels, state), B=B, C=C, rows="tokens"
    )
    x = torch.randn(batch, channels, tokens).transpose(1, 2)
    calls = []
    monkeypatch.setattr(native_impl, "run_ordered", lambda **given: calls.append(1) or library.run_ordered(**given))
    optional = dict(
        D=torch.randn(3, channels), dt_bias=torch.randn(3, channels), z=torch.randn(batch, tokens, channels)
    )
    missing = orders.clone()
    missing[1, 5] = -1
    for order, more, direct in ((orders, {}, 1), (of_each.int(), optional, 2), (missing, optional, 2)):
        with torch.no_grad():
            with use_backend("reference"):
                want = ordered_scan(x, order, dt, **parameters, **more)
            with use_backend("native"):
                found = ordered_scan(x, order, dt, **parameters, **more)
        assert relative_error(found, want) < 2e-6 and found.stride() == x.stride() and len(calls) == direct
    with use_backend("native"):
        ordered_scan(x, orders, dt, **parameters).sum().backward()
    assert dt.grad is not None and len(calls) == 2


# ---- ONNX Runtime ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def session_of():
    """model -> its session with the operator library."""
    onnxruntime = pytest.importorskip("onnxruntime")
    library = build_ort_library()

    def session(model):
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(library))
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    return session


def scan_model(inputs, softplus: bool):
    """A model of one node; `inputs` by name in the operator's order, None for those left out."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    names = [name if value is not None else "" for name, value in inputs.items()]
    while not names[-1]:
        names.pop()
    node = helper.make_node("TokenScan", names, ["y"], domain="mamba_vision", delta_softplus=int(softplus))
    values = [
        helper.make_tensor_value_info(name, floats, [f"{name}{i}" for i in range(value.dim())])
        for name, value in inputs.items()
        if value is not None
    ]
    out = helper.make_tensor_value_info("y", floats, ["b", "l", "d"])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mamba_vision", 2)]
    return helper.make_model(helper.make_graph([node], "scan", values, [out]), opset_imports=imports, ir_version=9)


def operator_inputs(**options):
    made = scan_inputs(**options, initial=False)
    made = {k: None if v is None else v.float() for k, v in made.items() if k != "initial_state"}
    return {name: made[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")}


def by_steps(name, value):
    """With the length behind the batch, as the operator has it."""
    return value if name in ("A", "D", "delta_bias") or value.dim() < 3 else value.movedim(-1, 1)


def feed(inputs):
    return {name: by_steps(name, value).numpy() for name, value in inputs.items() if value is not None}


@needs_compiler
@needs_headers
@pytest.mark.parametrize("optional", list(itertools.product([False, True], repeat=3)))
def test_operator_equals_the_reference(session_of, optional):
    D, z, bias = optional
    for shape in ({"length": 197, "channels": 48, "state": 16, "groups": 1}, {"length": 33}, {"state": 1, "length": 1}):
        inputs = operator_inputs(**shape, D=D, z=z, bias=bias)
        session = session_of(scan_model(inputs, softplus=True))
        with use_backend("reference"):
            exact = {k: None if v is None else v.double() for k, v in inputs.items()}
            want = selective_scan(**exact, delta_softplus=True)
        (found,) = session.run(None, feed(inputs))
        assert relative_error(torch.from_numpy(found).mT, want) < 2e-6


@needs_compiler
@needs_headers
def test_operator_without_softplus_and_with_other_matrices(session_of):
    for B, C in itertools.product(("constant", "shared", "grouped"), repeat=2):
        inputs = operator_inputs(B=B, C=C, groups=1)
        inputs["delta"], inputs["delta_bias"] = inputs["delta"].abs() * 0.3, inputs["delta_bias"].abs() * 0.1
        session = session_of(scan_model(inputs, softplus=False))
        with use_backend("reference"):
            want = selective_scan(**inputs)
        (found,) = session.run(None, feed(inputs))
        assert relative_error(torch.from_numpy(found).mT, want) < 1e-5


@needs_compiler
@needs_headers
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("delta", (2, 6, 18), r"delta has shape \(2, 18, 6\), expected the shape of u; u has shape \(2, 19, 6\)"),
        ("A", (5, 4), r"A has shape \(5, 4\), expected \(channels, state\)"),
        ("B", (2, 4, 4, 19), r"B has shape \(2, 19, 4, 4\), expected \(batch, length, groups, state\)"),
        ("C", (2, 1, 4, 19), r"C has shape \(2, 19, 1, 4\), expected as many groups as B"),
        ("D", (7,), r"D has shape \(7\), expected \(channels\)"),
        ("z", (2, 6, 1), r"z has shape \(2, 1, 6\), expected the shape of u"),
    ],
)
def test_operator_refuses_wrong_shapes(session_of, name, shape, message):
    inputs = operator_inputs()
    session = session_of(scan_model(inputs, softplus=True))
    inputs[name] = torch.randn(shape)
    with pytest.raises(Exception, match=message):
        session.run(None, feed(inputs))


@needs_compiler
@needs_headers
def test_the_command_prints_the_path(tmp_path):
    command = [sys.executable, "-m", "mamba_vision.kernels.native", "--out", str(tmp_path / "new/scan.so")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout.strip() == str(tmp_path / "new/scan.so")
    assert (tmp_path / "new/scan.so").stat().st_size > 10000
