"""What a network learns of a path, the loss it learns by, and what its output means for sampling.

SiT (Ma et al., arXiv 2401.08740), section 2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mamba_vision.models.diffusion.paths import PATHS, per_sample
from mamba_vision.models.layers.options import one_of

Network = Callable[[Tensor, Tensor], Tensor]  # (x_t, times (B,)) -> prediction of x's shape


class Transport:
    """A path and a prediction.

    Args:
        path: 'linear' (published), 'gvp' or 'vp'.
        prediction: what the network says: 'velocity' (published), 'noise' or 'score'.
        loss_weight: of noise and score losses: None for 1, 'velocity' for (g / sigma)^2, 'likelihood' for g / sigma^2.
        train_eps, sample_eps: how far training and sampling keep from the ends of [0, 1] where something is infinite.
            Published defaults: 0 for velocities on 'linear' and 'gvp'; 1e-5 (training) and 1e-3 on 'vp'; else 1e-3.

    Raises:
        ValueError: an option has another value.
    """

    def __init__(
        self,
        path: str = "linear",
        prediction: str = "velocity",
        loss_weight: str | None = None,
        train_eps: float | None = None,
        sample_eps: float | None = None,
    ) -> None:
        self.path = PATHS[one_of("path", path, tuple(PATHS))]()
        self.prediction = one_of("prediction", prediction, ("velocity", "noise", "score"))
        if loss_weight is not None:
            one_of("loss_weight", loss_weight, ("velocity", "likelihood"))
        self.loss_weight = loss_weight
        self.variance_preserving = path == "vp"
        regular = prediction == "velocity" and not self.variance_preserving
        train, sample = (0.0, 0.0) if regular else (1e-5 if self.variance_preserving else 1e-3, 1e-3)
        self.train_eps = train if train_eps is None or regular else train_eps
        self.sample_eps = sample if sample_eps is None or regular else sample_eps
        for name, eps in (("train_eps", self.train_eps), ("sample_eps", self.sample_eps)):
            if not 0 <= eps < 0.5:
                raise ValueError(f"{name}: found {eps}, expected a number from 0 to below 0.5")

    def interval(self, eps: float) -> tuple[float, float]:
        """First and last time of training (`train_eps`) or of an ODE (`sample_eps`)."""
        if self.variance_preserving:
            return 0.0, 1 - eps
        return (0.0, 1.0) if self.prediction == "velocity" else (eps, 1 - eps)

    def sde_interval(self, diffusion: str, last_step_size: float) -> tuple[float, float]:
        """First and last time of an SDE, whose last step goes from there to data.

        Published code starts velocity models under the form 'sbdm' at t = 0, where that is infinite: not so here.
        """
        last = 1 - (last_step_size or self.sample_eps)
        if self.variance_preserving:
            return 0.0, last
        if diffusion == "sbdm":
            return self.sample_eps or 1e-3, last
        return (0.0 if self.prediction == "velocity" else self.sample_eps), last

    def losses(
        self, network: Network, x1: Tensor, x0: Tensor | None = None, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of every sample, (B,), and the network's output.

        Args:
            network: called with x_t and times.
            x1: data, (B, ...).
            x0: noise; None draws it.
            times: (B,); None draws them evenly from the interval.
        """
        if x0 is None:
            x0 = torch.randn_like(x1)
        if times is None:
            first, last = self.interval(self.train_eps)
            times = torch.rand(len(x1), device=x1.device, dtype=x1.dtype) * (last - first) + first
        xt, velocity = self.path.point(x0, x1, times)
        found = network(xt, times)
        return self.loss_of(found, x0, velocity, times), found

    def loss_of(self, prediction: Tensor, x0: Tensor, velocity: Tensor, times: Tensor) -> Tensor:
        """The loss of every sample, (B,): a mean of squares, weighted but for velocities."""
        if self.prediction == "velocity":
            return (prediction - velocity).square().flatten(1).mean(1)
        sigma = self.path.sigma(times)[0]
        weight = 1.0
        if self.loss_weight is not None:
            g = self.path.diffusion(times)
            weight = (g / sigma) ** 2 if self.loss_weight == "velocity" else g / sigma**2
        error = prediction - x0 if self.prediction == "noise" else per_sample(sigma, prediction) * prediction + x0
        return weight * error.square().flatten(1).mean(1)

    def flow(self, prediction: Tensor, x: Tensor, times: Tensor) -> Tensor:
        """The velocity of the probability flow ODE, whatever the network predicts."""
        if self.prediction == "velocity":
            return prediction
        return self.path.velocity_from_score(self.score(prediction, x, times), x, times)

    def score(self, prediction: Tensor, x: Tensor, times: Tensor) -> Tensor:
        """The gradient of the log-density, whatever the network predicts."""
        if self.prediction == "velocity":
            return self.path.score_from_velocity(prediction, x, times)
        return prediction if self.prediction == "score" else -prediction / per_sample(self.path.sigma(times)[0], x)
