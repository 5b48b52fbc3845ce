"""Reading a configuration with changes from the command line, which also reach what the file derives from them."""

import ast
import difflib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mamba_vision.apis.config_check import RUNNER_KEYS
from mamba_vision.utils.quiet import quiet_imports

_ENDINGS = (".py", ".yml", ".yaml", ".json")


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """The configuration in `path`, with `options` ({'epochs': 5, 'optim_wrapper.optimizer.lr': 0.01}) put in.

    An option that names a variable of the file, such as `epochs` or `patch_size` in planned configurations, is put in
    its place before the file is run, so that everything below follows. MMEngine's own merging changes the variable
    only, with no effect. All other options are merged as MMEngine does it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no configuration, or an option changes nothing that it or MMEngine knows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration" + (" (it is a folder)" if path.is_dir() else ""))
    if path.suffix not in _ENDINGS:
        raise ValueError(f"{path}: found no configuration, expected a file that ends in {', '.join(_ENDINGS)}")
    options = dict(options or {})
    try:
        source = path.read_text(encoding="utf-8") if path.suffix == ".py" else ""
        assigned = _assignments(source)
        variables = {name: value for name, value in options.items() if name in assigned and name not in RUNNER_KEYS}
        cfg = _run(path, source, {assigned[name]: (name, value) for name, value in variables.items()})
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a configuration ({error})") from error
    rest = {name: value for name, value in options.items() if name not in variables}
    _refuse_unknown(path, rest, cfg)
    cfg.merge_from_dict(rest)
    return cfg


def _refuse_unknown(path: Path, options: Mapping[str, Any], cfg: Config) -> None:
    """MMEngine would add a misspelt name as a new one that nobody reads; below the first dot `check_config` looks."""
    for option in options:
        name = option.partition(".")[0]
        if name in cfg or name in RUNNER_KEYS:
            continue
        near = difflib.get_close_matches(name, [*cfg, *RUNNER_KEYS], 1, 0.6)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(sorted(cfg))}"
        raise ValueError(f"option {option}: {path} has no {name!r}, and MMEngine reads none{hint}")


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """'KEY=VALUE' words of a command line as a dict; values are Python literals, comma-separated lists, or text.

    Raises:
        ValueError: a word without '='.
    """
    parsed = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key:
            raise ValueError(f"--cfg-options: expected KEY=VALUE, found {option!r}")
        parsed[key] = _value(text)
    return parsed


def _value(text: str) -> Any:
    for candidate in (text, text.capitalize() if text in ("true", "false", "none") else text):
        try:
            return ast.literal_eval(candidate)
        except (ValueError, SyntaxError):
            continue
    return [_value(part) for part in text.split(",")] if "," in text else text


def _assignments(source: str) -> dict[str, tuple[int, int]]:
    """First and last line (from 1) of the last `name = ...` at the top level, for each name."""
    found = {}
    for node in ast.parse(source.replace("{{", "__").replace("}}", "__")).body if source else ():
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = (node.lineno, node.end_lineno)
    return found


def _read(path: Path) -> Config:
    with quiet_imports():  # of what custom_imports names
        return Config.fromfile(path)


def _run(path: Path, source: str, replaced: Mapping[tuple[int, int], tuple[str, Any]]) -> Config:
    """Run the file, or a copy beside it in which some assignments are others: `_base_` and fileDirname stay right."""
    if not replaced:
        return _read(path)
    lines = source.splitlines()
    for (first, last), (name, value) in sorted(replaced.items(), reverse=True):
        lines[first - 1 : last] = [f"{name} = {value!r}"]
    copy = path.with_name(f"_{uuid.uuid4().hex[:12]}_{path.name}")
    try:
        copy.write_text("\n".join(lines) + "\n", encoding="utf-8")
        cfg = _read(copy)
    finally:
        copy.unlink(missing_ok=True)
    object.__setattr__(cfg, "_filename", str(path))
    return cfg
