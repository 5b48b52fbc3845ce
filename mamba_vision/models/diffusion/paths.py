"""Paths from noise to data: x_t = alpha(t) x1 + sigma(t) x0, with noise x0 at t = 0 and data x1 at t = 1.

SiT (Ma et al., arXiv 2401.08740), section 2 and appendix. Times broadcast: everything here takes t of any shape, and
what takes x takes t with one entry a sample, (B,).
"""

import math

import torch
from torch import Tensor


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """(B,) as (B, 1, ...) with the axes of x."""
    return values.reshape(-1, *[1] * (x.ndim - 1)) if values.ndim else values


class Path:
    """What the paths share: everything follows from alpha, sigma and their derivatives."""

    def alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The share of data and its derivative."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The share of noise and its derivative."""
        raise NotImplementedError

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        """rho = alpha' / alpha."""
        alpha, rate = self.alpha(t)
        return rate / alpha

    def diffusion(self, t: Tensor) -> Tensor:
        """g = rho sigma^2 - sigma sigma'."""
        sigma, rate = self.sigma(t)
        return self.log_alpha_rate(t) * sigma**2 - sigma * rate

    def point(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t and its velocity, for noise x0 and data x1."""
        (alpha, d_alpha), (sigma, d_sigma) = (
            [per_sample(v, x1) for v in pair] for pair in (self.alpha(t), self.sigma(t))
        )
        return alpha * x1 + sigma * x0, d_alpha * x1 + d_sigma * x0

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """-rho x."""
        return -per_sample(self.log_alpha_rate(t), x) * x

    def score_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Gradient of the log-density at x."""
        kappa, sigma, d_sigma = self._ratios(x, t)
        return (kappa * velocity - x) / (sigma**2 - kappa * d_sigma * sigma)

    def noise_from_velocity(self, velocity: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The expected x0."""
        kappa, sigma, d_sigma = self._ratios(x, t)
        return (kappa * velocity - x) / (kappa * d_sigma - sigma)

    def velocity_from_score(self, score: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """g score - drift: the probability flow."""
        return per_sample(self.diffusion(t), x) * score - self.drift(x, t)

    def _ratios(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha / alpha', sigma and sigma'."""
        alpha, d_alpha = self.alpha(t)
        return tuple(per_sample(v, x) for v in (alpha / d_alpha, *self.sigma(t)))


class LinearPath(Path):
    """alpha = t, sigma = 1 - t: straight lines (flow matching, arXiv 2210.02747; ZigMa's recipe)."""

    def alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, torch.ones_like(t)

    def sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, -torch.ones_like(t)


class GVPPath(Path):
    """Generalized variance preserving: alpha = sin(pi t / 2), sigma = cos(pi t / 2)."""

    def alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t * (math.pi / 2)
        return angle.sin(), math.pi / 2 * angle.cos()

    def sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t * (math.pi / 2)
        return angle.cos(), -math.pi / 2 * angle.sin()


class VPPath(Path):
    """Variance preserving: the noise schedule of score-based diffusion (arXiv 2011.13456), beta from 20 to 0.1.

    sigma is 0 at t = 1, where scores and sigma's derivative are infinite.
    """

    low, high = 0.1, 20.0

    def log_alpha_rate(self, t: Tensor) -> Tensor:
        return 0.5 * (1 - t) * (self.high - self.low) + 0.5 * self.low

    def alpha(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = torch.exp(self._log_alpha(t))
        return alpha, alpha * self.log_alpha_rate(t)

    def sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        squared = torch.exp(2 * self._log_alpha(t))
        sigma = torch.sqrt(1 - squared)
        return sigma, -squared * self.log_alpha_rate(t) / sigma

    def diffusion(self, t: Tensor) -> Tensor:
        return self.log_alpha_rate(t)  # beta / 2, without the division by a sigma that may be 0

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * (1 - t) ** 2 * (self.high - self.low) - 0.5 * (1 - t) * self.low


PATHS = {"linear": LinearPath, "gvp": GVPPath, "vp": VPPath}
FORMS = ("sbdm", "sigma", "linear", "decreasing", "increasing-decreasing", "constant")


def diffusion_form(path: Path, form: str, t: Tensor, norm: float = 1.0) -> Tensor:
    """w(t), how much noise an SDE adds on its way: any w >= 0 has the same marginals (SiT, section 2.4).

    Args:
        form: one of `FORMS`: 'sbdm' is norm g, 'sigma' norm sigma, 'linear' norm (1 - t), 'decreasing'
            (norm cos(pi t) + 1)^2 / 4, 'increasing-decreasing' norm sin(pi t)^2, 'constant' norm.

    Raises:
        ValueError: another form.
    """
    if form == "sbdm":
        return norm * path.diffusion(t)
    if form == "sigma":
        return norm * path.sigma(t)[0]
    if form == "linear":
        return norm * (1 - t)
    if form == "decreasing":
        return 0.25 * (norm * torch.cos(math.pi * t) + 1) ** 2
    if form == "increasing-decreasing":
        return norm * torch.sin(math.pi * t) ** 2
    if form == "constant":
        return torch.full_like(t, norm)
    raise ValueError(f"diffusion: found {form!r}, expected one of {', '.join(FORMS)}")
