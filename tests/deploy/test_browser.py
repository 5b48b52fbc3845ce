"""examples/browser in headless Chromium: the scores of mamba_vision.deploy. Skipped without Chromium or npm."""

import json
import shutil
import subprocess
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mamba_vision.deploy import Classifier
from mamba_vision.deploy.finish import add_scan_function
from mamba_vision.deploy.scan_function import OPERATOR, VERSION

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "browser"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
INFO = {
    "format": 1, "task": "classification", "labels": ["red", "green", "blue"],
    "preprocess": {"mean": [127.5] * 3, "std": [127.5] * 3, "rgb": True, "steps": []},
}  # fmt: skip
_PAGE = """<!doctype html><script type="module">
let answer;
try {
  const { Classifier } = await import("./classify.js");
  const classifier = await Classifier.load("model.onnx", "model.json");
  const canvas = new OffscreenCanvas(16, 12);
  const context = canvas.getContext("2d");
  context.fillStyle = "rgb(200, 40, 90)"; context.fillRect(0, 0, 16, 12);
  context.fillStyle = "rgb(10, 220, 30)"; context.fillRect(4, 2, 7, 9);
  answer = { classes: await classifier.classify(canvas) };
} catch (error) { answer = { error: String(error) }; }
await fetch("answer", { method: "POST", body: JSON.stringify(answer) });
</script>"""


def scanning_classifier() -> onnx.ModelProto:
    """Three logits out of a selective scan over the pixels: a node of ours, with its function behind the graph."""
    nodes = [
        helper.make_node("Reshape", ["image", "tokens"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["u"], perm=[0, 2, 1]),
        helper.make_node("Abs", ["u"], ["delta"]),
        helper.make_node("ReduceMean", ["u"], ["B"], keepdims=1, axes=[2]),
        helper.make_node(OPERATOR, ["u", "delta", "A", "B", "B"], ["y"], domain="mamba_vision"),
        helper.make_node("ReduceMean", ["y"], ["logits"], keepdims=0, axes=[1]),
    ]
    constants = {"tokens": np.int64([0, 3, -1]), "A": -np.float32([[0.5], [1], [2]])}
    graph = helper.make_graph(
        nodes, "scan", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mamba_vision", VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    add_scan_function(model)
    helper.set_model_props(model, {"mamba_vision": json.dumps(INFO)})
    return model


def fetch_runtime(folder: Path) -> None:
    """onnxruntime-web from the npm registry; skips the test where that cannot be reached."""
    if BROWSER is None or shutil.which("npm") is None:
        pytest.skip("needs Chromium and npm")
    try:
        subprocess.run(["npm", "pack", "onnxruntime-web"], cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("the npm registry cannot be reached")
    (archive,) = folder.glob("onnxruntime-web-*.tgz")
    with tarfile.open(archive) as files:
        for name in RUNTIME:
            (folder / name).write_bytes(files.extractfile(f"package/dist/{name}").read())


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and takes the page's answer."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".js": "text/javascript"}

    def do_POST(self) -> None:
        self.server.answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.answered.set()

    def log_message(self, *_) -> None:
        pass


@pytest.mark.slow
def test_the_example_in_chromium(tmp_path: Path) -> None:
    fetch_runtime(tmp_path)
    onnx.save(scanning_classifier(), tmp_path / "model.onnx")
    (tmp_path / "model.json").write_text(json.dumps(Classifier(tmp_path / "model.onnx").model.info))
    shutil.copy(EXAMPLE / "classify.js", tmp_path)
    (tmp_path / "test.html").write_text(_PAGE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    server.answered = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    page = f"http://127.0.0.1:{server.server_address[1]}/test.html"
    browser = subprocess.Popen([BROWSER, *options, page], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert server.answered.wait(300), "the page did not answer"
    finally:
        browser.terminate()
        browser.wait(20)
        server.shutdown()
    assert "error" not in server.answer, server.answer["error"]
    picture = np.empty((12, 16, 3), np.uint8)
    picture[:] = (200, 40, 90)
    picture[2:11, 4:11] = (10, 220, 30)
    expected = Classifier(tmp_path / "model.onnx")(picture)
    assert [one["label"] for one in server.answer["classes"]] == expected.labels
    assert np.allclose([one["score"] for one in server.answer["classes"]], expected.scores, atol=1e-5)
