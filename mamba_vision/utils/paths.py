"""Where configs/ and tools/ lie: in a clone at its root, in an installed wheel under mamba_vision/.mim."""

from pathlib import Path

FOLDERS = ("configs", "tools")


def project_folder(name: str) -> Path:
    """The folder `configs` or `tools` of this installation.

    Raises:
        ValueError: another name.
        FileNotFoundError: the installation carries no such folder.
    """
    if name not in FOLDERS:
        raise ValueError(f"folder {name!r} is not shipped; choose one of {', '.join(FOLDERS)}")
    package = Path(__file__).resolve().parents[1]
    for root in (package / ".mim", package.parent):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"{name}/ is neither in {package / '.mim'} nor beside {package}: reinstall mamba_vision")
