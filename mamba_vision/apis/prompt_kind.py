"""Whether a configuration is of a promptable model: asked before anything heavy is imported."""

from pathlib import Path

from mmengine.config import Config

from mamba_vision.apis.config_loading import load_config

KIND = "PromptSegmentor"


def find_config(path: str | Path) -> Path:
    """The configuration itself, or that of a work folder: config.py, else the newest .py in it.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such configuration or folder")
    if (path / "config.py").is_file():
        return path / "config.py"
    found = sorted(path.glob("*.py"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{path}: expected the configuration (.py) that training leaves there; found none")
    return found[-1]


def is_promptable(cfg: Config) -> bool:
    """Whether the configuration is of a model that takes prompts."""
    model = cfg.get("model") or {}
    return str(model.get("type", "")).rpartition(".")[2] == KIND


def names_promptable(path: str | Path) -> bool:
    """Whether this is a configuration or work folder of a promptable model; False where it can't be read."""
    try:
        return is_promptable(load_config(find_config(path)))
    except (ValueError, OSError, KeyError):
        return False
