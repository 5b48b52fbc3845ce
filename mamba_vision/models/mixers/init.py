"""How the parameters around a selective scan start: drawn here once for every mixer.

Mamba (Gu and Dao, arXiv 2312.00752), section 3.6 and appendix; S4D-real (arXiv 2206.11893).
"""

import math

import torch
from torch import Tensor, nn


def s4d_real_log(channels: int, state: int, device: torch.device | str | None = None) -> Tensor:
    """log(-A) of S4D-real, (channels, state): every channel decays at the rates 1, 2, ..., state. Always float32."""
    rates = torch.arange(1, state + 1, dtype=torch.float32, device=device)
    return rates.log().repeat(channels, 1)


def inverse_softplus(value: Tensor) -> Tensor:
    """The x with softplus(x) = value > 0, without overflow for large values or cancellation for small ones."""
    return value + torch.log(-torch.expm1(-value))


def log_uniform_steps(count: int, low: float, high: float, floor: float) -> Tensor:
    """`count` step sizes, log-uniform in [low, high] and not below `floor`, float32."""
    exponent = torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low)
    return exponent.exp().clamp_min(floor)


@torch.no_grad()
def init_step_projection_(
    projection: nn.Linear,
    dt_min: float = 0.001,
    dt_max: float = 0.1,
    dt_init: str = "random",
    dt_scale: float = 1.0,
    dt_init_floor: float = 1e-4,
) -> nn.Linear:
    """Start the projection from dt_rank to channels so that softplus(bias) is log-uniform in [dt_min, dt_max].

    Args:
        projection: Linear(dt_rank, channels) with a bias. Changed in place.
        dt_init: "random" draws the weight uniformly within ±dt_scale / sqrt(dt_rank); "constant" sets that value.

    Raises:
        ValueError: `dt_init` is another word, or the range of steps is empty.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max, found {dt_min} and {dt_max}")
    spread = dt_scale * projection.in_features**-0.5
    if dt_init == "random":
        projection.weight.uniform_(-spread, spread)
    elif dt_init == "constant":
        projection.weight.fill_(spread)
    else:
        raise ValueError(f"dt_init must be 'random' or 'constant', found {dt_init!r}")
    steps = log_uniform_steps(projection.out_features, dt_min, dt_max, dt_init_floor)
    projection.bias.copy_(inverse_softplus(steps))
    # A framework that zeroes every Linear bias would erase the layer's time scales: those that honour this mark do not.
    projection.bias._no_reinit = True
    return projection
