"""Files from strangers: damaged, of other kinds, or pointing elsewhere: refused with a message that says why."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from without_torch import deploy

from mamba_vision.deploy import Classifier, ModelFile, ModelFileError, PictureSegmentor
from mamba_vision.deploy.pictures import prepare, resize
from mamba_vision.utils.atomic import write_json

INFO = {
    "format": 1, "task": "classification", "labels": ["dark", "bright"],
    "preprocess": {
        "mean": [0.0], "std": [255.0], "rgb": True,
        "steps": [{"size": [4, 4], "interpolation": "bilinear", "backend": "cv2"}],
    },
}  # fmt: skip


def tiny(info: dict | None = INFO) -> onnx.ModelProto:
    """Logits (0, 10 mean - 5) of a gray picture of 4 x 4."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
    ]
    weight = np.stack([np.zeros(16), np.full(16, 10 / 16)], 1).astype(np.float32)
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(weight, "weight"), onnx.numpy_helper.from_array(np.float32([0, -5]), "bias")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if info is not None:
        helper.set_model_props(model, {"mamba_vision": json.dumps(info)})
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    onnx.save(tiny(), tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def test_a_whole_model_runs(file: Path, tmp_path: Path) -> None:
    assert Classifier(file)(np.full((9, 7, 1), 250, np.uint8)).labels == ["bright", "dark"]
    Image.fromarray(np.full((9, 7), 20, np.uint8)).save(tmp_path / "dark.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    run = deploy("classify", file, tmp_path / "dark.png", tmp_path / "broken.png")
    assert run.returncode == 1 and "dark.png: dark 0.98" in run.stdout and "broken.png: failed" in run.stderr


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "no graph in it"),
        (b"this is no model at all", "expected a complete ONNX model"),
        (b"\x80\x04\x95pickle", "expected a complete ONNX model"),
        (tiny().SerializeToString()[:-40], "ends in the middle"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"bad.onnx: .*{message}"):
        ModelFile(tmp_path / "bad.onnx")
    run = deploy("classify", tmp_path / "bad.onnx", tmp_path / "x.png")
    assert run.returncode == 2 and run.stderr.startswith("error: ") and "Traceback" not in run.stderr


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    content = tiny().SerializeToString()
    for end in range(1, len(content), 37):
        (tmp_path / "cut.onnx").write_bytes(content[:end])
        with pytest.raises(ModelFileError):
            ModelFile(tmp_path / "cut.onnx")


@pytest.mark.parametrize("where", ["graph", "attribute", "function"])
def test_data_in_other_files_is_refused(tmp_path: Path, where: str) -> None:
    model = tiny()
    outside = onnx.TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[16, 2])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/passwd")
    if where == "graph":
        model.graph.initializer[0].CopyFrom(outside)
    else:
        node = helper.make_node("Constant", [], ["unused"])
        node.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=outside))
        if where == "attribute":
            model.graph.node.append(node)
        else:
            model.functions.add(name="f", domain="d", node=[node])
    (tmp_path / "outside.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="a tensor that lies in another file"):
        ModelFile(tmp_path / "outside.onnx")


@pytest.mark.parametrize(
    "info,message",
    [
        (None, "without its metadata"),
        ({"format": 2, "task": "classification"}, "metadata that this version does not understand"),
        ({"format": 1, "task": "os.system"}, "metadata that this version does not understand"),
        ([1], "metadata that this version does not understand"),
        ({"format": 1, "task": "classification"}, "metadata without preprocess; expected what tools/export_onnx.py"),
        ({**INFO, "preprocess": {"mean": [0.0], "std": [1.0]}}, "preprocess without rgb"),
        ({**INFO, "preprocess": {"mean": [0.0], "rgb": True}}, "preprocess has a mean but no std"),
        ({**INFO, "labels": "dark"}, "labels is 'dark', expected a list or dict"),
        ({"format": 1, "task": "restoration", "scale": 2}, "metadata without channels"),
        ({"format": 1, "task": "volume_segmentation"}, "expected a first input of 5 axes"),
    ],
)
def test_metadata(tmp_path: Path, info, message: str) -> None:
    onnx.save(tiny(info), tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=message):
        ModelFile(tmp_path / "m.onnx")


def test_the_description_beside_seals_the_file(file: Path) -> None:
    beside = file.with_suffix(".json")
    for content in ("", "[1, 2]", '{"cat.jpg": {"labels": ["dark"]}}'):  # of somebody else
        beside.write_text(content)
        ModelFile(file)
    record = {"written_by": "mamba_vision 1", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    write_json(beside, record)
    ModelFile(file)
    beside.write_text(beside.read_text()[:-20])
    with pytest.raises(ModelFileError, match=r"tiny.json: no whole description of tiny.onnx"):
        ModelFile(file)
    write_json(beside, {"written_by": "mamba_vision 1"})
    with pytest.raises(ModelFileError, match=r"tiny.json: no sha256"):
        ModelFile(file)
    write_json(beside, record)
    onnx.save(tiny({**INFO, "labels": ["other", "names"]}), file)
    with pytest.raises(ModelFileError, match=r"tiny.onnx: not the model that tiny.json describes"):
        ModelFile(file)


def test_what_does_not_go_together(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="expected a model for segmentation, found one for classification"):
        PictureSegmentor(file)
    with pytest.raises(ValueError, match=r"image has shape \(1, 1, 5, 5\), the model takes"):
        ModelFile(file)(np.zeros((1, 1, 5, 5), np.float32))
    with pytest.raises(FileNotFoundError, match="no such model file"):
        ModelFile(tmp_path / "none.onnx")
    with pytest.raises(FileNotFoundError, match="no such library"):
        ModelFile(file, library=tmp_path / "none.so")
    with pytest.raises(ModelFileError, match="not a library of operators"):
        ModelFile(file, library=file)


def test_importing_needs_numpy_alone() -> None:
    heavy = ("torch", "mmengine", "onnx", "scipy", "nibabel", "PIL")
    code = f"import sys, mamba_vision.deploy.command; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("size", [(7, 5), (20, 33), (12, 10)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_resizing_is_opencvs_and_pytorchs(size: tuple[int, int], interpolation: str) -> None:
    import cv2
    import torch

    x = np.random.default_rng(0).uniform(size=(3, 12, 10)).astype(np.float32)
    found = resize(x, size, interpolation)
    flags = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST}
    expected = np.stack([cv2.resize(one, size[::-1], interpolation=flags[interpolation]) for one in x])
    assert np.allclose(found, expected, atol=1e-4)
    align = None if interpolation == "nearest" else False
    torchs = torch.nn.functional.interpolate(torch.tensor(x)[None], size, mode=interpolation, align_corners=align)
    assert np.allclose(found, torchs[0].numpy(), atol=1e-4)


def test_preparing_is_the_pipelines() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    steps = [{"short_side": 32, "interpolation": "bicubic", "backend": "pillow"}, {"crop": [24, 24]}]
    x = prepare(picture, {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "rgb": False, "steps": steps})
    resized = np.asarray(Image.fromarray(picture).resize((44, 32), Image.Resampling.BICUBIC))[4:28, 10:34, ::-1]
    assert np.allclose(x[0].transpose(1, 2, 0), (resized - np.float32([1, 2, 3])) / np.float32([4, 5, 6]), atol=1e-5)


@pytest.mark.parametrize(("size", "channels"), [((96, 128), 3), ((33, 20), 3), ((25, 30), 1)])
def test_preparing_resizes_as_opencv_to_the_digit(size: tuple[int, int], channels: int) -> None:
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (50, 60, channels), dtype=np.uint8)
    step = {"size": size, "interpolation": "bilinear", "backend": "cv2"}
    x = prepare(picture, {"mean": [0.0], "std": [1.0], "rgb": True, "steps": [step]})
    expected = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, channels)
    assert np.array_equal(x[0].transpose(1, 2, 0), expected)
