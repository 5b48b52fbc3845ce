"""One step of a discrete system, for sequences that are read a token at a time."""

import torch


def system_step(
    Ad: torch.Tensor, Bd: torch.Tensor, C: torch.Tensor, u: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """h = Ad h + Bd u and y = Re C h.

    Args:
        Ad: (features, states), diagonal, or (features, states, states); complex, as Bd, C and state.
        Bd: (features, states).
        C: (channels, features, states).
        u: (batch, features).
        state: (batch, features, states), before the step.

    Returns:
        y (batch, channels, features), real, and the state behind the step.
    """
    carried = Ad * state if Ad.dim() == 2 else torch.einsum("hmn,bhn->bhm", Ad, state)
    state = carried + Bd * u.unsqueeze(-1)
    return torch.einsum("chn,bhn->bch", C, state).real, state
