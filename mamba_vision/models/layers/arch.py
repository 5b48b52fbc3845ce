"""A system's variants as data: the name of one, or a dict of its numbers, with single numbers given beside it."""

from collections.abc import Mapping
from typing import Any


def arch_settings(
    system: str,
    table: Mapping[str, Mapping[str, Any]],
    arch: str | Mapping[str, Any] | None,
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """The constructor's settings: what is `given` and not None goes before `arch`, and that before `defaults`.

    Args:
        system: Name of the class, for messages.
        table: The variants by name.
        arch: A name of the table, a dict of settings, or None.
        given: Every setting of the constructor, None where the caller left it open.
        defaults: Settings that may be left open everywhere.

    Raises:
        ValueError: an unknown variant or setting, or a setting that nobody gave.
    """
    if isinstance(arch, str):
        if arch not in table:
            raise ValueError(f"{system}: unknown arch {arch!r}; choose one of {', '.join(sorted(table))}")
        arch = table[arch]
    arch = dict(arch or {})
    if unknown := sorted(set(arch) - set(given)):
        raise ValueError(f"{system}: arch has unknown settings {', '.join(unknown)}; known are {', '.join(given)}")
    settings = {**defaults, **arch, **{key: value for key, value in given.items() if value is not None}}
    if missing := [key for key in given if key not in settings]:
        raise ValueError(f"{system}: give {', '.join(missing)}, or an arch of {', '.join(sorted(table))}")
    return settings
