"""Activations by the names that published options use."""

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}


def activation(name: str) -> type[nn.Module]:
    """The class of an activation.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: found {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
