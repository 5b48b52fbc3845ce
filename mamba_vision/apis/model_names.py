"""Every variant of every system by one name.

Names are made from the registered classes and the tables of variants (`ARCHS`) beside them; there is no second list.
"""

import difflib
import fnmatch
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from mamba_vision.utils.quiet import quiet_imports

BACKBONES = "mamba_vision.models.backbones."


@dataclass(frozen=True)
class Variant:
    """A named variant: its class and what its constructor is given."""

    name: str
    system: type[nn.Module]
    options: dict[str, Any] = field(hash=False)

    @property
    def is_backbone(self) -> bool:
        """Whether it is a backbone, for classifiers and feature pyramids, or else a whole network."""
        return self.system.__module__.startswith(BACKBONES)

    @property
    def is_plain(self) -> bool:
        """Whether it is a backbone of one stride, a stack of blocks."""
        return self.is_backbone and "out_type" in self.arguments

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its entry in the table of variants."""
        return _archs(self.system)[self.options["arch"]]

    @property
    def arguments(self) -> Mapping[str, inspect.Parameter]:
        """What its constructor takes."""
        return inspect.signature(self.system).parameters

    def check(self, key: str, value: Any) -> None:
        """Raise ValueError if the constructor has no such argument."""
        if key not in self.arguments:
            known = ", ".join(self.arguments)
            raise ValueError(f"{key}: found {value!r}, but {self.name} has no such option; it has {known}")


@cache
def variants() -> dict[str, Variant]:
    """All variants by name, sorted."""
    with quiet_imports():
        from mamba_vision.registry import MODELS

        MODELS.import_from_location()
    found = {}
    for system in MODELS.module_dict.values():
        archs = _archs(system)
        if archs is None or "arch" not in inspect.signature(system).parameters:
            continue
        for form, options in getattr(system, "published_forms", {"": {}}).items():
            family = "_".join(filter(None, (system.__name__.lower(), form)))
            # A form is published under its own name (U-Mamba_Bot): alone, it stands for its first arch.
            names = {family: next(iter(archs))} if form else {}
            names |= {f"{family}_{arch.replace('+', '_plus')}": arch for arch in archs}
            for name, arch in names.items():
                found[name] = Variant(name, system, {"arch": arch, **options})
    return dict(sorted(found.items()))


def list_models(pattern: str = "*") -> list[str]:
    """Names of all variants that fit a pattern, sorted; `get_model` builds them.

    Args:
        pattern: with `*` and `?`, such as '*vmamba*'.

    Raises:
        ValueError: `pattern` is no text.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"pattern: found {pattern!r}, expected a text such as '*vmamba*'")
    return fnmatch.filter(variants(), pattern)


def find_variant(name: str) -> Variant:
    """The variant of a name; case, '-' and '_' make no difference.

    Raises:
        ValueError: there is none; the message has the nearest names.
    """
    if not isinstance(name, str):
        raise ValueError(f"model {name!r} is not a name; list_models() has all names")
    if found := variants().get(name):
        return found
    bare = {_bare(known): variant.name for known, variant in variants().items()}
    asked = _bare(name)
    if asked in bare:
        return variants()[bare[asked]]
    near = [known for known in bare if asked and known.startswith(asked)][:8]
    near = near or difflib.get_close_matches(asked, bare, n=5, cutoff=0.6)
    hint = f"nearest: {', '.join(bare[known] for known in near)}" if near else "list_models() has all names"
    raise ValueError(f"model {name!r} is not known; {hint}")


def _archs(system: type) -> Mapping[str, Any] | None:
    return getattr(sys.modules[system.__module__], "ARCHS", None)


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace("+", "plus")
