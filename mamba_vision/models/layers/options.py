"""Checks that constructors of backbones share."""

from collections.abc import Sequence


def one_of(name: str, value: str, valid: Sequence[str]) -> str:
    """`value` itself.

    Raises:
        ValueError: it is none of `valid`; the message names the option.
    """
    if value not in valid:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(valid)}")
    return value


def checked_indices(out_indices: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Out indices of a network of `count` blocks or stages, negative ones counted from the end, as 0 .. count - 1.

    Raises:
        ValueError: there is none, or one is out of range.
    """
    given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
    indices = tuple(index + count if index < 0 else index for index in given)
    if not indices or not all(0 <= index < count for index in indices):
        raise ValueError(f"out_indices: found {out_indices}, expected numbers of 0 .. {count - 1}")
    return indices
