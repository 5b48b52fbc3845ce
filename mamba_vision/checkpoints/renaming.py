"""Published names and ours: tables of patterns that read in both directions.

A pattern is a name in which `*` stands for a run of characters without a dot and `**` for any run. A pair
('layers.*.mixer.**', 'blocks.*.mamba.**') renames one way with its left side as the source and back with its right: the
n-th star of one side is the n-th of the other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from torch import nn

from mamba_vision.checkpoints.errors import CheckpointError

Value = TypeVar("Value")
_STARS = re.compile(r"\*\*?")


@cache
def _compiled(pattern: str) -> re.Pattern:
    literals, stars = _STARS.split(pattern), _STARS.findall(pattern)
    text = re.escape(literals[0])
    for star, literal in zip(stars, literals[1:]):
        text += ("(.*)" if star == "**" else "([^.]*)") + re.escape(literal)
    return re.compile(text)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns covers the whole name."""
    return any(_compiled(pattern).fullmatch(name) for pattern in patterns)


def rename_one(name: str, renames: Sequence[tuple[str, str]], backwards: bool = False) -> str:
    """One name through the table, from top to bottom (backwards: from bottom to top, right side to left).

    Raises:
        ValueError: the two sides of a pair have different stars.
    """
    for source, target in reversed(renames) if backwards else renames:
        if _STARS.findall(source) != _STARS.findall(target):
            raise ValueError(f"renaming pair ({source!r}, {target!r}) must have the same stars on both sides")
        if backwards:
            source, target = target, source
        if found := _compiled(source).fullmatch(name):
            parts = iter(found.groups())
            name = _STARS.sub(lambda _, parts=parts: next(parts), target)
    return name


def rename(state: Mapping[str, Value], renames: Sequence[tuple[str, str]], backwards: bool = False) -> dict[str, Value]:
    """A state dict under renamed keys.

    Args:
        renames: Pairs (published pattern, our pattern).
        backwards: From our names to the published ones.

    Raises:
        CheckpointError: two names become one.
    """
    renamed: dict[str, Value] = {}
    origin: dict[str, str] = {}
    for name, value in state.items():
        new = rename_one(name, renames, backwards)
        if new in renamed:
            raise CheckpointError(f"{origin[new]} and {name} are both renamed to {new}")
        renamed[new], origin[new] = value, name
    return renamed


def published_names(model: nn.Module) -> dict[str, str]:
    """Our name of every parameter and buffer -> its published name, by the table that stands beside the model."""
    renames = getattr(model, "published_renames", ())
    return {name: rename_one(name, renames, backwards=True) for name in model.state_dict()}
