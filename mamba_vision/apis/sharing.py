"""Work on a list shared by the processes that a launcher (torchrun) started, where only small results are exchanged."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")
_HOURS = 12  # the slowest process may take that much longer than the first


@contextmanager
def joined(launcher: str) -> Iterator[None]:
    """A group of the launched processes for the time of the block; 'none' is one process alone.

    Over gloo, also where there are GPUs: what is exchanged are Python objects.

    Raises:
        ValueError: another launcher than 'pytorch', or a process that torchrun did not start.
    """
    if launcher == "none":
        yield
        return
    if launcher != "pytorch" or "WORLD_SIZE" not in os.environ:
        raise ValueError(f"--launcher {launcher}: scans are shared by processes that torchrun starts (pytorch)")
    distributed.init_process_group("gloo", timeout=timedelta(hours=_HOURS))
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def my_share(items: Sequence[Item]) -> list[Item]:
    """Every n-th of `items` for n processes, beginning with this one's number."""
    return list(items[rank() :: distributed.get_world_size()]) if distributed.is_initialized() else list(items)


def from_all(value: Any) -> list[Any]:
    """What each process has passed here, in their order."""
    if not distributed.is_initialized():
        return [value]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered


def my_device(device: str | None) -> str | None:
    """The device that was named; of several processes without one, each its own GPU if there are some."""
    if device is not None or not distributed.is_initialized() or not torch.cuda.is_available():
        return device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
