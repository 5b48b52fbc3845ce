"""Packages that hand names on without importing what they come from until somebody asks."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for the package's __init__.py: {name: module that defines it}."""

    def __getattr__(name: str) -> Any:  # noqa: N807 (it becomes the module's)
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return __getattr__
