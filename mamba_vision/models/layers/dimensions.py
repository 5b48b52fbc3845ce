"""Layers by number of spatial axes, so that a network is written once for images and volumes."""

from collections.abc import Sequence

from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def check_dims(spatial_dims: int) -> int:
    """`spatial_dims` if it is 2 or 3.

    Raises:
        ValueError: another number.
    """
    if spatial_dims not in CONV:
        raise ValueError(f"spatial_dims must be 2 or 3, found {spatial_dims!r}")
    return spatial_dims


def per_axis(name: str, value: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """One positive integer an axis, from one integer for all or a sequence of them.

    Raises:
        ValueError: the sequence has another length, or an entry is not positive.
    """
    axes = (value,) * spatial_dims if isinstance(value, int) else tuple(value)
    if len(axes) != spatial_dims or not all(isinstance(n, int) and n > 0 for n in axes):
        raise ValueError(f"{name} must be a positive integer or {spatial_dims} of them, found {value!r}")
    return axes


def check_input(x: Tensor, spatial_dims: int, channels: int) -> None:
    """Refuse what is not (batch, channels, *S) with `spatial_dims` axes S.

    Raises:
        ValueError: another number of axes or channels.
    """
    if x.dim() != spatial_dims + 2 or x.shape[1] != channels:
        expected = f"(batch, {channels}, {', '.join('DHW'[-spatial_dims:])})"
        raise ValueError(f"x must be {expected}, found shape {tuple(x.shape)}")
