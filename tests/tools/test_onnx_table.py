"""tools/analysis_tools/onnx_table.py: what it measures, at which size, and the page that it writes."""

import runpy
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mamba_vision.utils.paths import project_folder

TOOL = project_folder("tools") / "analysis_tools" / "onnx_table.py"


@pytest.fixture(scope="module")
def tool() -> dict:
    return runpy.run_path(str(TOOL))


def test_costly_networks_are_measured_at_smaller_sizes(tool: dict) -> None:
    for pattern, size in tool["SMALLER"].items():
        found = [name for name in tool["all_names"]() if fnmatch(name, pattern)]
        assert found and {tool["example_size"](name) for name in found} == {size}
    assert tool["example_size"]("vim_tiny") is None


def test_a_network_is_measured_at_its_smaller_size(tool: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tool["SMALLER"], "plainunet_tiny", (16, 16, 24))
    row = tool["measured"]("plainunet_tiny", None, 1)
    assert row["size"] == [16, 16, 24] and {len(times) for times in row["ms"].values()} == {1}
    assert "| 16 × 16 × 24 |" in tool["line"]("plainunet_tiny", row)


def test_the_page_is_that_of_the_results(tool: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not tool["STORE"].is_file():
        pytest.skip("needs the results of a clone")
    monkeypatch.setattr(sys, "argv", [str(TOOL), "--render", "--page", str(tmp_path / "onnx.md")])
    tool["main"]()
    found, kept = (file.read_text(encoding="utf-8") for file in (tmp_path / "onnx.md", tool["PAGE"]))
    assert found == kept, "run python tools/analysis_tools/onnx_table.py --render"
