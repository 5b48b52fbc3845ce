"""tools/segment.py on pictures with prompts, and tools/prompt_page.py, as a user calls them."""

import csv
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.image_model import build_from_config
from mamba_vision.utils.paths import project_folder

TOOLS = project_folder("tools")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def call(*arguments) -> int:
    return runpy.run_path(str(TOOLS / "segment.py"))["main"]([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """A work folder with a small model, and a picture."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "small.py").write_text(
        "default_scope = 'mamba_vision'\n"
        "model = dict(type='PromptSegmentor', network=dict(type='ProMamba', arch='test'))\n"
    )
    torch.manual_seed(0)
    torch.save(build_from_config(load_config(folder / "small.py")).state_dict(), folder / "epoch_1.pth")
    rows, columns = np.mgrid[0:60, 0:90]
    picture = np.stack([4 * rows, 2 * columns, rows + columns], 2).clip(0, 255).astype(np.uint8)
    Image.fromarray(picture).save(folder / "frame.png")
    return folder


def test_box_and_points(work_dir, tmp_path, capsys):
    out = tmp_path / "out"
    given = ["--box", "10,5,70,50", "--points", "20,20,1", "80,50,0", "--device", "cpu", "--out", out]
    assert call(work_dir, work_dir / "frame.png", *given) == 0
    shown = capsys.readouterr().out
    assert "1 box, 2 points" in shown
    assert "1 of 1 segmented" in shown and "statistics.csv" in shown
    assert set(np.unique(np.array(Image.open(out / "masks" / "frame.png")))) <= {0, 255}
    assert np.array(Image.open(out / "overlays" / "frame.png")).shape == (60, 90, 3)
    with (out / "statistics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["boxes"] == "10 5 70 50" and row["points"] == "20 20 1; 80 50 0" and int(row["pixels"]) >= 0
    assert json.loads((out / "statistics.json").read_text())[0]["boxes"] == [[10, 5, 70, 50]]


def test_folder_with_a_file_of_prompts(work_dir, tmp_path, capsys):
    shutil.copy(work_dir / "frame.png", tmp_path / "a.png")
    shutil.copy(work_dir / "frame.png", tmp_path / "b.png")
    (tmp_path / "prompts.json").write_text('{"b.png": {"boxes": [[1, 2, 50, 40]], "points": [[3, 3, 0]]}}')
    arguments = ["--checkpoint", work_dir / "epoch_1.pth", "--device", "cpu", "--out", tmp_path / "out"]
    given = [*arguments, "--prompts", tmp_path / "prompts.json", "--no-preview", "--probabilities"]
    assert call(work_dir / "small.py", tmp_path, *given) == 0
    shown = capsys.readouterr().out
    assert "a.png: no prompt" in shown and "2 of 2 segmented" in shown
    assert not (tmp_path / "out" / "overlays").exists()
    assert sorted(file.name for file in (tmp_path / "out" / "probabilities").iterdir()) == ["a.png", "b.png"]


def test_without_prompts_and_with_a_damaged_picture(work_dir, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no")
    given = ["--device", "cpu", "--out", tmp_path / "out"]
    assert call(work_dir, work_dir / "frame.png", tmp_path / "broken.png", *given) == 1
    assert "broken.png: failed: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "10,5,70,50", "--tta", "none"], "tta: for scans, not for pictures"),
        (["--box", "100,5,170,50"], None),
        (["--prompts", "none.json"], "none.json"),
    ],
)
def test_refused(work_dir, tmp_path, capsys, arguments, message):
    status = call(work_dir, work_dir / "frame.png", *arguments, "--device", "cpu", "--out", tmp_path / "out")
    shown = capsys.readouterr()
    if message is None:
        assert status == 1 and "box 100,5,170,50 lies outside the picture of 90 x 60" in shown.out
    else:
        assert status == 2 and message in shown.err


@pytest.mark.parametrize("box", ["10,5,70", "70,5,10,50", "a,b,c,d"])
def test_boxes_are_read_with_care(work_dir, tmp_path, capsys, box):
    with pytest.raises(SystemExit):
        call(work_dir, work_dir / "frame.png", "--box", box, "--out", tmp_path)
    assert "expected X0,Y0,X1,Y1" in capsys.readouterr().err


def test_the_page_says_what_it_needs(work_dir, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gradio" else find(name, *more)
    )
    main = runpy.run_path(str(TOOLS / "prompt_page.py"))["main"]
    assert main([str(work_dir)]) == 2
    assert 'gradio, which is missing: pip install "mamba_vision[web]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def page_address(work_dir):
    """Where tools/prompt_page.py serves its page."""
    pytest.importorskip("gradio")
    command = [
        sys.executable,
        "-u",
        TOOLS / "prompt_page.py",
        work_dir,
        "--image",
        work_dir / "frame.png",
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            if "Serving on " in line:
                yield line.split("Serving on ")[1].split(" ")[0]
                return
        pytest.fail("the page did not start: " + "".join(said))
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_the_page_is_served(page_address):
    assert page_address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(page_address + "config") as answer:
        config = json.load(answer)
    names = {part["props"].get("elem_id") for part in config["components"]}
    assert {"upload", "mode", "undo", "clear", "summary", "save", "canvas"} <= names
    assert config["title"] == "Segment by boxes and points"


@pytest.mark.slow
def test_clicking_in_a_browser(page_address, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_address)
        page.wait_for_selector("#canvas img", timeout=60_000)

        def said(text: str, unsaid: str = "?") -> None:
            """Waits until the page says one and not the other."""
            condition = "([yes, no], said = document.querySelector('#summary').innerText) => "
            condition += "said.includes(yes) && !said.split('\\n')[0].includes(no)"
            page.wait_for_function(condition, arg=[text, unsaid], timeout=60_000)

        def click(x: int, y: int) -> None:
            """On pixel (x, y) of the picture of 90 x 60, which the page shows in its own size amid the frame."""
            box = page.locator("#canvas img").first.bounding_box()
            before = page.get_attribute("#canvas img", "src")
            page.mouse.click(
                box["x"] + (box["width"] - 90) / 2 + x + 0.5, box["y"] + (box["height"] - 60) / 2 + y + 0.5
            )
            other = "(old, image = document.querySelector('#canvas img')) => image?.complete && image.src !== old"
            page.wait_for_function(other, arg=before, timeout=60_000)  # a click while pictures change hits neither

        def click_twice_at_once() -> None:
            """On the picture's middle, and 10 pixels lower right before the page can answer."""
            page.evaluate(
                """() => {
                    const image = document.querySelector('#canvas img'), box = image.getBoundingClientRect();
                    const x = box.x + box.width / 2, y = box.y + box.height / 2;
                    for (const step of [0, 10])
                        image.dispatchEvent(
                            new MouseEvent('click', {bubbles: true, clientX: x + step, clientY: y + step}));
                }"""
            )

        said("no prompt")
        click(20, 10)
        said("click the opposite corner")
        click(70, 50)
        said("1 box")
        page.get_by_label("point: not this").check()
        click(80, 55)
        said("1 box, 1 point")
        page.get_by_text("Undo").click()
        said("1 box", unsaid="point")
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "mask.png")
        assert np.array(Image.open(tmp_path / "mask.png")).shape == (60, 90)
        page.get_by_text("Clear prompts").click()
        said("no prompt")
        page.get_by_label("box: click two corners").check()
        click_twice_at_once()
        said("1 box")
        page.get_by_text("Clear prompts").click()
        said("no prompt")
        Image.fromarray(np.full((40, 50, 3), 99, np.uint8)).save(tmp_path / "own.png")
        page.locator("#upload button[aria-label*='lear'], #upload button[aria-label*='emove']").first.click()
        page.locator("#upload input[type=file]").set_input_files(tmp_path / "own.png")
        page.wait_for_function("document.querySelector('#canvas img')?.naturalWidth === 50", timeout=30_000)
        said("no prompt")
        browser.close()
    assert not errors
    assert all(url.startswith((page_address, "data:", "blob:")) for url in asked), "the page fetches from elsewhere"
