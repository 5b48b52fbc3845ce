"""Checks that backbones share: of the options that they are built with, and of images."""

from collections.abc import Sequence

from torch import Tensor


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


def checked_frozen(frozen_stages: int, count: int, parts: str = "blocks") -> int:
    """`frozen_stages` of a network of `count` parts.

    Raises:
        ValueError: it is not of -1 .. count.
    """
    if not -1 <= frozen_stages <= count:
        raise ValueError(f"frozen_stages: found {frozen_stages}, expected -1 (nothing) .. {count} ({parts})")
    return frozen_stages


def check_image(image: Tensor, channels: int) -> None:
    """An image batch (B, channels, H, W), not empty.

    Raises:
        ValueError: it is something else.
    """
    if image.dim() != 4 or image.shape[1] != channels or 0 in image.shape[2:]:
        raise ValueError(f"x: found shape {tuple(image.shape)}, expected (batch, {channels}, height, width)")
