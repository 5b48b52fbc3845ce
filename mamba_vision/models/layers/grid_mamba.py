"""U-Mamba's layer: norm and one-direction Mamba over the voxels, or over the channels, of a feature map."""

from torch import Tensor, nn

from mamba_vision.kernels.operators import without_autocast
from mamba_vision.models.mixers.mamba import Mamba


class GridMamba(nn.Module):
    """LayerNorm and Mamba on a map (B, C, *S); the result replaces the map (no residual, no MLP).

    Args:
        dim: Width of a token: C, or with `channel_token` the number of voxels.
        channel_token: The C channels are the sequence and the voxels its width; the map's size is then fixed.
        d_state, d_conv, expand: see `Mamba`.

    Runs in the parameters' precision with autocast off: half-precision gates times states overflow (U-Mamba issue 8).
    """

    def __init__(
        self, dim: int, channel_token: bool = False, d_state: int = 16, d_conv: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        self.dim, self.channel_token = dim, channel_token
        self.norm = nn.LayerNorm(dim)
        self.mamba = Mamba(dim, d_state, d_conv, expand)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S), in the parameters' precision.

        Raises:
            ValueError: channels are the tokens and the map does not have `dim` voxels.
        """
        if self.channel_token and x[0, 0].numel() != self.dim:
            raise ValueError(f"x must have {self.dim} voxels, as channels are the tokens; found {tuple(x.shape[2:])}")
        with without_autocast(x):
            tokens = x.to(self.norm.weight.dtype).flatten(2)
            if self.channel_token:
                return self.mamba(self.norm(tokens)).reshape(x.shape)
            return self.mamba(self.norm(tokens.transpose(1, 2))).transpose(1, 2).reshape(x.shape)
