"""What the parity tests of networks share."""

from torch import Tensor, nn

from mamba_vision.checkpoints import published_names


def recorded_gradients(model: nn.Module, case) -> dict[str, Tensor]:
    """The gradients that a case recorded, under their published names."""
    parameters = dict(model.named_parameters())
    ours = {theirs: name for name, theirs in published_names(model).items()}
    return {name: parameters[ours[name]].grad for name in case.gradients}
