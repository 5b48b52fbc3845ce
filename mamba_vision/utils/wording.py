"""Small pieces of what tools print: numbers with their noun, short paths, commands that can be typed."""

import shlex
from pathlib import Path


def count(number: int, what: str) -> str:
    """'1 case', '2 cases'."""
    return f"{number} {what}{'s' * (number != 1)}"


def shown(path: str | Path) -> str:
    """A path as one would type it here: relative to the current folder if it lies in it."""
    path = Path(path)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)


def command(tool: str, *words: str | Path) -> str:
    """The line to type for a tool; paths are `shown`, and words with spaces quoted."""
    return f"python {tool} {shlex.join(shown(word) if isinstance(word, Path) else word for word in words)}"
