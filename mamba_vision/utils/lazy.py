"""Packages that hand names on without importing what they come from until somebody asks."""

import importlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from mamba_vision.utils.quiet import quiet_imports


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for the package's __init__.py: {name: module that defines it}, and the package's own modules.

    What the libraries behind them have to say while they are imported is not said.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 (it becomes the module's)
        inside = f"{package}.{name}"
        if name not in modules and (name.startswith("_") or find_spec(inside) is None):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with quiet_imports():
            found = importlib.import_module(modules.get(name, inside))
        return getattr(found, name) if name in modules else found

    return __getattr__
