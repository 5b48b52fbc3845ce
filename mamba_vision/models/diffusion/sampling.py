"""From noise to data by a probability flow ODE or an SDE (SiT, arXiv 2401.08740, sections 2.2 and 2.4)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mamba_vision.models.diffusion.ode import SOLVERS
from mamba_vision.models.diffusion.paths import FORMS, diffusion_form, per_sample
from mamba_vision.models.diffusion.transport import Network, Transport
from mamba_vision.models.layers.options import one_of

METHODS = (*SOLVERS, "sde_euler", "sde_heun")


@dataclass(frozen=True)
class Sampler:
    """How to sample.

    Args:
        method: 'euler', 'heun' or 'dopri5' for the ODE, 'sde_euler' or 'sde_heun'. ('dopri5' chooses its steps.)
        num_steps: as published the number of times from first to last, one more than there are steps between them.
        rtol, atol: of 'dopri5'.
        diffusion: form of an SDE's noise, see `paths.diffusion_form`.
        diffusion_norm: its norm.
        last_step: how an SDE goes from its last time to data without noise: 'mean', 'euler', 'tweedie' or 'none'.
        last_step_size: length of that step.

    Raises:
        ValueError: an option has another value.
    """

    method: str = "dopri5"
    num_steps: int = 50
    rtol: float = 1e-3
    atol: float = 1e-6
    diffusion: str = "sigma"
    diffusion_norm: float = 1.0
    last_step: str = "mean"
    last_step_size: float = 0.04

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        one_of("diffusion", self.diffusion, FORMS)
        one_of("last_step", self.last_step, ("mean", "euler", "tweedie", "none"))
        if self.num_steps < 2:
            raise ValueError(f"num_steps: found {self.num_steps}, expected at least 2")
        if not 0 < self.last_step_size < 1:
            raise ValueError(f"last_step_size: found {self.last_step_size}, expected a number between 0 and 1")

    def __call__(
        self, transport: Transport, network: Network, noise: Tensor, draw: Callable[[Tensor], Tensor] = torch.randn_like
    ) -> Iterator[Tensor]:
        """States on the way, the last of them a sample.

        Args:
            network: called with x and times (B,).
            noise: x at the first time, (B, ...).
            draw: noise of the shape of x, for an SDE; called once a step.
        """
        if self.method.startswith("sde_"):
            return self._sde(transport, network, noise, draw)
        first, last = transport.interval(transport.sample_eps)
        times = torch.linspace(first, last, self.num_steps, device=noise.device, dtype=noise.dtype)

        def flow(x: Tensor, time: Tensor) -> Tensor:
            at = time.expand(len(x))
            return transport.flow(network(x, at), x, at)

        solve = SOLVERS[self.method]
        if self.method == "dopri5":
            solve = partial(solve, rtol=self.rtol, atol=self.atol)
        return solve(flow, noise, times)

    def _sde(
        self, transport: Transport, network: Network, x: Tensor, draw: Callable[[Tensor], Tensor]
    ) -> Iterator[Tensor]:
        """The state after each noisy step and after the last step, noise itself left out."""
        size = 0.0 if self.last_step == "none" else self.last_step_size
        first, last = transport.sde_interval(self.diffusion, size)
        if self.method == "sde_heun":
            last = min(last, 1 - 1e-3)  # it looks at the last time, and at 1 a score is infinite
        times = torch.linspace(first, last, self.num_steps, device=x.device, dtype=x.dtype)
        step = times[1] - times[0]

        def slopes(x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """The SDE's drift, the ODE's, and the score."""
            said = network(x, at)
            flow, score = transport.flow(said, x, at), transport.score(said, x, at)
            return flow + per_sample(self._width(transport, at), x) * score, flow, score

        for time in times[:-1]:
            at = time.expand(len(x))
            kick = per_sample((2 * self._width(transport, at) * step).sqrt(), x) * draw(x)
            if self.method == "sde_euler":
                x = x + slopes(x, at)[0] * step + kick
            else:
                x = x + kick
                here = slopes(x, at)[0]
                x = x + 0.5 * step * (here + slopes(x + step * here, at + step)[0])
            yield x
        if self.last_step != "none":
            yield self._finish(transport, slopes, x, times[-1].expand(len(x)))

    def _finish(self, transport: Transport, slopes: Callable, x: Tensor, at: Tensor) -> Tensor:
        drift, flow, score = slopes(x, at)
        if self.last_step == "mean":
            return x + drift * self.last_step_size
        if self.last_step == "euler":
            return x + flow * self.last_step_size
        alpha, sigma = (per_sample(v, x) for v in (transport.path.alpha(at)[0], transport.path.sigma(at)[0]))
        return x / alpha + sigma**2 / alpha * score

    def _width(self, transport: Transport, at: Tensor) -> Tensor:
        return diffusion_form(transport.path, self.diffusion, at, self.diffusion_norm)
