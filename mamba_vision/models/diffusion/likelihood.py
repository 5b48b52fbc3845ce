"""How likely data are under a network's probability flow (Chen et al. 2018, arXiv 1806.07366; FFJORD, 1810.01367)."""

import math

import torch
from torch import Tensor

from mamba_vision.models.diffusion.ode import dopri5
from mamba_vision.models.diffusion.transport import Network, Transport


@torch.no_grad()
def log_likelihood(
    transport: Transport,
    network: Network,
    x1: Tensor,
    probe: Tensor | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Log-densities of data in nats, and the noise that they flow from.

    The flow's divergence is estimated with a random probe (Hutchinson). Published code draws the probe anew in every
    evaluation, which no adaptive step can follow: here one is kept.

    Args:
        network: called with x and times (B,).
        x1: data, (B, ...).
        probe: signs of x1's shape; None draws them.

    Returns:
        (B,) log-densities, and x0 of x1's shape.
    """
    if probe is None:
        probe = torch.randint_like(x1, 2) * 2 - 1
    shape, first_to_last = x1.shape, transport.interval(transport.sample_eps)

    def field(state: Tensor, time: Tensor) -> Tensor:
        with torch.enable_grad():
            x = state[:, :-1].reshape(shape).detach().requires_grad_()
            at = time.expand(len(x))
            flow = transport.flow(network(x, at), x, at)
            (turned,) = torch.autograd.grad(flow, x, probe)
        divergence = (turned * probe).flatten(1).sum(1, keepdim=True)
        return torch.cat([flow.detach().flatten(1), divergence], dim=1)

    start = torch.cat([x1.flatten(1), x1.new_zeros(len(x1), 1)], dim=1)
    times = torch.tensor(first_to_last[::-1], device=x1.device, dtype=x1.dtype)
    *_, end = dopri5(field, start, times, rtol, atol)
    x0, gathered = end[:, :-1], end[:, -1]  # gathered: minus the integral from first to last
    prior = -0.5 * (x0.square().sum(1) + x0.shape[1] * math.log(2 * math.pi))
    return prior + gathered, x0.reshape(shape)
