"""Every tutorial runs as it is written: its shell blocks and its Python blocks, in order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mamba_vision.utils.paths import project_folder

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(shell|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(DOCS.glob("tutorials/*.md")), ids=lambda page: page.stem)
def test_tutorial(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("tools", "configs"):
        (tmp_path / folder).symlink_to(project_folder(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict = {"__name__": page.stem}
    blocks = BLOCK.findall(page.read_text())
    assert blocks, f"{page}: no block to run"
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(page), "exec"), names)  # the page is ours
            continue
        shown = subprocess.run(["bash", "-e", "-c", text], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, f"{text}\n{shown.stdout[-2000:]}\n{shown.stderr[-2000:]}"
