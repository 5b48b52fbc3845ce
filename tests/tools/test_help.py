"""`--help` of every tool: there at once, which means that nothing heavy is imported before arguments are read."""

import re
import subprocess
import sys

from mamba_vision.utils.paths import project_folder

TOOLS = project_folder("tools")
HEAVY = ("torch", "mmengine", "mmcv", "monai", "matplotlib", "scipy", "onnxruntime", "gradio")
ASK = f"""
import runpy, sys
for tool in sys.argv[1:]:
    sys.argv = [tool, "--help"]
    print("TOOL", tool)
    try:
        runpy.run_path(tool, run_name="__main__")
    except SystemExit as end:
        print("ENDS", end.code, [name for name in {HEAVY} if name in sys.modules])
"""


def test_help_imports_nothing_heavy():
    tools = sorted(map(str, TOOLS.rglob("*.py")))
    command = [sys.executable, "-c", ASK, *tools]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^TOOL (.*)\n", shown, flags=re.MULTILINE)[1:]
    said = dict(zip(parts[::2], parts[1::2]))
    assert list(said) == tools
    for tool, text in said.items():
        assert text.startswith("usage: "), tool
        assert text.endswith("ENDS 0 []\n"), f"{tool}: {text.splitlines()[-1]}"
