"""VMamba's block: a 2-D mixer and a perceptron, each with a norm and a residual (arXiv 2401.10166, figure 3)."""

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mamba_vision.models.layers.activations import activation
from mamba_vision.models.layers.channels_last import channels_last_norm
from mamba_vision.models.layers.fused_norm import add_and_norm, norm_tokens_by
from mamba_vision.models.layers.mlp import Mlp
from mamba_vision.registry import MIXERS


class VSSBlock(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm2(x)); with `post_norm` x + norm(mixer(x)), then x + norm2(mlp(x)).

    Args:
        channels: C.
        mixer: config of the mixer; None for a block without one.
        norm: 'ln', 'ln2d' or 'bn'.
        drop_path: rate of dropping each of the two branches.
        mlp_ratio: inner width of the perceptron over C; none at 0 or below.
        mlp_act: its activation.
        mlp_drop: its dropout.
        gmlp: gate it.
        post_norm: see above.

    Shape:
        (B, H, W, C) to (B, H, W, C).
    """

    def __init__(
        self, channels: int, mixer: dict | None, norm: str = "ln2d", drop_path: float = 0.0, mlp_ratio: float = 4.0,
        mlp_act: str = "gelu", mlp_drop: float = 0.0, gmlp: bool = False, post_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.post_norm, self.drop_path = post_norm, DropPath(drop_path)
        self.op = self.mlp = None
        if mixer is not None:
            self.norm = channels_last_norm(norm, channels)
            self.op = MIXERS.build({**mixer, "d_model": channels, "_scope_": "mamba_vision"})
        if mlp_ratio > 0:
            self.norm2 = channels_last_norm(norm, channels)
            self.mlp = Mlp(channels, int(mlp_ratio * channels), activation(mlp_act), mlp_drop, gated=gmlp)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if self.post_norm:
            for inner, norm in self._branches():
                x_BHWC = x_BHWC + self.drop_path(norm(inner(x_BHWC)))
            return x_BHWC
        update = None
        for inner, norm in self._branches():
            if update is None:
                normed = norm_tokens_by(norm, x_BHWC, for_linear=True)
            else:
                normed, x_BHWC = add_and_norm(norm, update, x_BHWC, for_linear=True)
            update = self.drop_path(inner(normed))
        return x_BHWC if update is None else x_BHWC + update

    def _branches(self) -> list[tuple[nn.Module, nn.Module]]:
        branches = [] if self.op is None else [(self.op, self.norm)]
        return branches if self.mlp is None else [*branches, (self.mlp, self.norm2)]
