"""The two-layer perceptron behind a mixer, plain or gated."""

from torch import Tensor, nn

from mamba_vision.models.layers.recompute import recomputed


class Mlp(nn.Module):
    """Linear, activation, dropout, Linear, dropout, over the last axis.

    Args:
        channels: input and output width.
        hidden: inner width.
        act: class of the activation.
        drop: dropout rate.
        gated: `fc1` is twice as wide and its halves (a, b) combine as a * act(b).

    Shape:
        (..., channels) to (..., channels).
    """

    def __init__(
        self, channels: int, hidden: int, act: type[nn.Module] = nn.GELU, drop: float = 0.0, gated: bool = False
    ) -> None:
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(channels, 2 * hidden if gated else hidden)
        self.act = act()
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.gated:
            a, b = x.chunk(2, dim=-1)
            return self.drop(self.fc2(a * self.act(b)))
        if self.training and self.drop.p > 0:
            return self.drop(self.fc2(self.drop(self.act(x))))
        return recomputed(self._second, x)

    def _second(self, x: Tensor) -> Tensor:
        """Activation and second Linear: the activation's result is as wide as its input and quickly had again."""
        return self.fc2(self.act(x))
