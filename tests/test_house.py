"""The house keeps itself: imports run one way, rooms stay small, importing the package stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mamba_vision.utils import project_folder

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(__import__("mamba_vision").__file__).parent

# A room may import rooms of a lower rank, and itself. Rooms of rank 4 are leaves: none imports another.
# structures says what a batch is and imports nothing of ours, so everybody from models on may use it.
RANK = {
    "version": 0, "utils": 0,
    "registry": 1, "kernels": 1, "structures": 1,
    "scan_orders": 2,
    "models": 3,
    "datasets": 4, "evaluation": 4, "volumes": 4, "checkpoints": 4, "visualization": 4,
    "engine": 5, "deploy": 5,
    "apis": 6,
}  # fmt: skip
# kernels.compat offers the layers of mamba_ssm, so it hands out our mixer when it is installed (never at import).
EXCEPTIONS = {("kernels", "models", "compat")}


def sources() -> list[tuple[str, Path]]:
    """(room, file) of every module of the package; kernels/ lies beside it in a clone and inside it once installed."""
    kernels = PACKAGE / "kernels" if (PACKAGE / "kernels").is_dir() else PACKAGE.parent / "kernels"
    found = [("kernels", file) for file in sorted(kernels.rglob("*.py"))]
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).parts
        if parts[0] not in {"kernels", ".mim"} and len(parts) > 0 and file != PACKAGE / "__init__.py":
            found.append((parts[0].removesuffix(".py"), file))
    return found


def imported_rooms(file: Path) -> set[str]:
    """Rooms of mamba_vision that the file imports, at its top or inside a function."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "mamba_vision" and len(parts) > 1 and parts[1] in RANK:
                rooms.add(parts[1])
    return rooms


def violations(files: list[tuple[str, Path]]) -> list[str]:
    """Every import that runs upward or sideways."""
    bad = []
    for room, file in files:
        assert room in RANK, f"{file}: a new room; give it a rank here and in the design notes"
        for other in imported_rooms(file) - {room}:
            if RANK[other] >= RANK[room] and (room, other, file.stem) not in EXCEPTIONS:
                bad.append(f"{file}: {room} imports {other}")
    return bad


def test_imports_run_one_way() -> None:
    assert not violations(sources())


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from mamba_vision.apis import volume_inference\n")
    assert len(violations([("models", file)])) == 1
    file.write_text("from mamba_vision.volumes import reading\n")
    assert len(violations([("evaluation", file)])) == 1


def test_no_circles_between_modules() -> None:
    """Follow top-level imports module by module: nobody comes back to where they started."""
    modules = {}
    for room, file in sources():
        base = PACKAGE if room != "kernels" else next(p for p in file.parents if p.name == "kernels")
        prefix = ["mamba_vision"] + (["kernels"] if room == "kernels" else [])
        parts = [*prefix, *file.relative_to(base).with_suffix("").parts]
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {}
    for name, file in modules.items():
        targets = set()
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mamba_vision"):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    targets.add(full if full in modules else node.module)
        graph[name] = {t for t in targets if t in modules and not name.startswith(t)}

    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_files_can_be_read_in_one_sitting() -> None:
    long = {str(file): n for _, file in sources() if (n := len(file.read_text().splitlines())) > 600}
    assert not long


def test_inits_only_hand_names_on() -> None:
    """An op's folder defines the op in its __init__.py; every other one holds imports, a docstring and __all__."""
    for room, file in sources():
        if file.name != "__init__.py" or room == "kernels":
            continue
        for node in ast.parse(file.read_text()).body:
            plain = isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr))
            assert plain, f"{file}:{node.lineno}: __init__.py only hands names on"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, mamba_vision; print([m for m in ('torch', 'mmengine', 'monai') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_kernels_import_without_mmengine() -> None:
    code = "import sys, mamba_vision.kernels; print([m for m in ('mmengine', 'monai', 'mmcv') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.skipif(
    not (ROOT / "setup.cfg").exists(), reason="reads the clone's own files; an installed wheel has none"
)
def test_nothing_names_a_machine() -> None:
    """No path of a developer's machine in a file that is kept."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    needles = ["/" + "work/", "/" + "root/", "/" + "home/", ".." + "/shared"]
    for name in tracked.stdout.splitlines():
        file = ROOT / name
        if file.suffix in {".npz", ".png", ".gif", ".gz", ".json"} or not file.exists():
            continue
        text = file.read_text(errors="ignore")
        assert not [n for n in needles if n in text], f"{name} names a path of one machine"


def test_tools_explain_every_argument_and_end_alike() -> None:
    for file in sorted(project_folder("tools").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert "run_tool(main)" in text, f"{file}: ends otherwise than utils.tool_exit.run_tool"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                explained = any(keyword.arg == "help" for keyword in node.keywords)
                assert explained, f"{file}:{node.lineno}: {ast.unparse(node.args[0])} has no help"
