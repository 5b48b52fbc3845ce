"""The pages on scan orders are true: the recipe is followed step by step, and every order is shown with its picture."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders import gather_tokens, return_tokens
from mamba_vision.utils import project_folder
from mamba_vision.visualization.scan_paths import scan_lines, scan_paths_figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECIPE = DOCS / "recipes" / "add-a-scan-order.md"
PAGE = DOCS / "scan-orders.md"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="reads the pages of a clone")


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def load(name: str, code: str, folder: Path):
    """Import a block as the module that the recipe has the reader write."""
    path = folder / f"{name.rpartition('.')[2]}.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(tmp_path: Path):
    return load("visualize_scan", (project_folder("tools") / "visualize_scan.py").read_text(encoding="utf-8"), tmp_path)


def test_the_recipe_works(tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, loaded = set(SCAN_ORDERS.module_dict), set(sys.modules)
    SCAN_ORDERS.build("raster")
    order_code, test_code = blocks(RECIPE, "python")
    try:
        # Step 1 and 3: the order, and its test as it stands
        load("mamba_vision.scan_orders.diagonal", order_code, tmp_path)
        tests = load("test_diagonal", test_code, tmp_path)
        (check,) = (value for name, value in vars(tests).items() if name.startswith("test_"))
        check()

        # what the step promises: every token once, side by side with others, options checked, sizes dynamic in export
        for grid in ((1, 1), (4, 7), (6, 2)):
            orders = SCAN_ORDERS.build(["cross", dict(type="diagonal", corner="right")])(grid)
            x = torch.randn(1, grid[0] * grid[1], 3)
            assert torch.equal(return_tokens(gather_tokens(x, orders), orders), x[:, None].expand(1, 6, -1, 3))
        with pytest.raises(ValueError, match="corner is 'top', expected one of 'left', 'right'"):
            SCAN_ORDERS.build(dict(type="diagonal", corner="top"))

        class Read(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                orders = SCAN_ORDERS.build("diagonal")(x.shape[2:])
                return gather_tokens(x.flatten(2).transpose(1, 2), orders)

        sides = {2: torch.export.Dim("height", min=2, max=99), 3: torch.export.Dim("width", min=2, max=99)}
        program = torch.export.export(Read(), (torch.randn(1, 2, 4, 5),), dynamic_shapes=(sides,), strict=False)
        x = torch.randn(1, 2, 7, 3)
        assert torch.equal(program.module()(x), Read()(x))

        # Step 4: the picture
        monkeypatch.chdir(tmp_path)
        (command,) = blocks(RECIPE, "sh")
        assert tool.main(shlex.split(command)[2:]) == 0
        assert (tmp_path / "docs" / "images" / "scan_orders" / "diagonal.png").is_file()
    finally:
        for name in set(SCAN_ORDERS.module_dict) - before - {"raster"}:
            if name == "diagonal":
                SCAN_ORDERS.module_dict.pop(name)
        for name in set(sys.modules) - loaded:
            if name.endswith("diagonal"):
                sys.modules.pop(name)


def test_the_recipe_names_what_is_there() -> None:
    root = DOCS.parent
    text = RECIPE.read_text(encoding="utf-8")
    for name in ("test_published.py", "test_properties.py", "test_interface.py"):
        assert name in text
        assert (root / "tests" / "scan_orders" / name).is_file()
    assert (RECIPE.parent / "../scan-orders.md").is_file()


def test_every_order_has_its_row_and_picture(tool) -> None:
    SCAN_ORDERS.build("raster")
    text, drawn = PAGE.read_text(encoding="utf-8"), set()
    for command in blocks(PAGE, "sh"):
        arguments = tool.parse_args(shlex.split(command)[2:])
        assert tool.build(arguments).n_directions
        picture = DOCS.parent / arguments.out
        assert f"]({picture.relative_to(DOCS)})" in text
        assert picture.stat().st_size < 60_000, picture
        drawn.update(arguments.orders)
    assert drawn == set(SCAN_ORDERS.module_dict) - {"combined"}
    for name in SCAN_ORDERS.module_dict:
        assert re.search(rf"^\| \[?`{name}`", text, re.MULTILINE), name
    pictures = {path.name for path in (DOCS / "images" / "scan_orders").iterdir()}
    assert pictures == {Path(path).name for path in re.findall(r"images/scan_orders/\w+\.png", text)}


def test_the_example_of_the_page_runs() -> None:
    (example,) = blocks(PAGE, "python")
    names: dict = {}
    exec(example, names)
    assert names["order"].labels == ("h", "v_flip", "w2", "w7")
    assert names["orders"].indices.shape == names["orders"].inverse.shape == (4, 196)
    assert scan_paths_figure(scan_lines(names["order"], (3, 4)), (3, 4), names["order"].labels)
