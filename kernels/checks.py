"""Argument checks of the ops: every message names the argument, what came and what was expected."""

import torch


def check_shape(name: str, tensor: torch.Tensor, expected: tuple[int, ...], because: str) -> None:
    """Raise ValueError unless `tensor` has the expected shape; `because` says where that comes from."""
    if tuple(tensor.shape) != tuple(expected):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected)}: {because}")


def check_float(**tensors: torch.Tensor | None) -> None:
    """Raise ValueError for a tensor that is given and not of a real floating-point dtype."""
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} has dtype {tensor.dtype}, expected a floating-point dtype")


def check_device(first: str, **tensors: torch.Tensor | None) -> None:
    """Raise ValueError unless all tensors given are on the device of the argument called `first`."""
    device = tensors[first].device
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, but {first} is on {device}")


def cast(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """The tensor in another dtype; None, and a tensor that has it, as they are: an exported graph shows no step."""
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def compute_dtype(tensor: torch.Tensor) -> torch.dtype:
    """float64 for float64 inputs, float32 for all others: the precision of states and sums."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
