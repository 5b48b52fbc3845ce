"""MambaIRUNet (Guo et al., ECCV 2024, arXiv 2402.15648): removal of real noise, in Restormer's U-shape.

The block of MambaIR at four resolutions. Names of weights are the published ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.mirror_padding import cut_to, mirror_to
from mamba_vision.models.layers.options import check_image
from mamba_vision.models.layers.residual_state_space import ResidualStateSpaceBlock
from mamba_vision.registry import MODELS

ARCHS = {
    "realdn": dict(dim=48, num_blocks=(4, 6, 6, 8), num_refinement_blocks=4, mlp_ratio=1.5),
    "tiny": dict(dim=32, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, mlp_ratio=1.0),
}
# Of the published variant.
PARAMETERS = {"realdn": 26_779_480}
_STRIDE = 8


@MODELS.register_module()
class MambaIRUNet(Network):
    """U-shaped MambaIR; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of the settings below.
        in_channels: of the image, which comes out with as many.
        dim: width of the finest level, at least 30; it doubles a level.
        num_blocks: blocks of the four levels, finest first (the last is the bottleneck).
        num_refinement_blocks: blocks behind the finest decoder.
        d_state: states of the scans, at every level.
        mlp_ratio: inner width of the scans over the level's width.
        with_cp: gradient checkpointing of the blocks, for less memory in training.
        init_cfg: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes published files.

    Shape:
        (B, in_channels, H, W) in [0, 1] to the same. Sides that 8 does not divide are mirrored up inside and cut again.

    Raises:
        ValueError: a setting is missing, unknown or has a bad value.
    """

    upscale = 1

    def __init__(
        self,
        arch: str | dict | None = None,
        in_channels: int | None = None,
        dim: int | None = None,
        num_blocks: Sequence[int] | None = None,
        num_refinement_blocks: int | None = None,
        d_state: int | None = None,
        mlp_ratio: float | None = None,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            in_channels=in_channels, dim=dim, num_blocks=num_blocks, num_refinement_blocks=num_refinement_blocks,
            d_state=d_state, mlp_ratio=mlp_ratio,
        )  # fmt: skip
        s = arch_settings("MambaIRUNet", ARCHS, arch, given, dict(in_channels=3, d_state=16, mlp_ratio=2.0))
        if len(s["num_blocks"]) != 4:
            raise ValueError(f"num_blocks: expected four numbers, one a level, found {s['num_blocks']}")
        self.in_channels, self.with_cp = s["in_channels"], with_cp
        dim, (n1, n2, n3, n4) = s["dim"], s["num_blocks"]

        def blocks(width: int, count: int) -> nn.ModuleList:
            made = (ResidualStateSpaceBlock(width, s["d_state"], s["mlp_ratio"]) for _ in range(count))
            return nn.ModuleList(made)

        self.patch_embed = Projection(self.in_channels, dim)
        self.encoder_level1, self.down1_2 = blocks(dim, n1), Halve(dim)
        self.encoder_level2, self.down2_3 = blocks(2 * dim, n2), Halve(2 * dim)
        self.encoder_level3, self.down3_4 = blocks(4 * dim, n3), Halve(4 * dim)
        self.latent = blocks(8 * dim, n4)
        self.up4_3, self.up3_2, self.up2_1 = Double(8 * dim), Double(4 * dim), Double(2 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=False)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=False)
        # The finest level keeps both halves, skip and decoded: twice as wide as its encoder.
        self.decoder_level3, self.decoder_level2 = blocks(4 * dim, n3), blocks(2 * dim, n2)
        self.decoder_level1 = blocks(2 * dim, n1)
        self.refinement = blocks(2 * dim, s["num_refinement_blocks"])
        self.output = nn.Conv2d(2 * dim, self.in_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        check_image(x, self.in_channels)
        size = x.shape[2:]
        grid = [(side + _STRIDE - 1) // _STRIDE * _STRIDE for side in size]
        image = mirror_to(x, grid, repeat_edge=False)
        level1 = self._run(self.encoder_level1, self.patch_embed(image))
        level2 = self._run(self.encoder_level2, self.down1_2(level1))
        level3 = self._run(self.encoder_level3, self.down2_3(level2))
        y = self._run(self.latent, self.down3_4(level3))
        y = self._run(self.decoder_level3, self.reduce_chan_level3(torch.cat([self.up4_3(y), level3], 1)))
        y = self._run(self.decoder_level2, self.reduce_chan_level2(torch.cat([self.up3_2(y), level2], 1)))
        y = self._run(self.decoder_level1, torch.cat([self.up2_1(y), level1], 1))
        y = self._run(self.refinement, y)
        return cut_to(self.output(y) + image, size)

    def _run(self, blocks: nn.ModuleList, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        for block in blocks:
            if self.with_cp and torch.is_grad_enabled():
                x_BHWC = checkpoint(block, x_BHWC, use_reentrant=False)
            else:
                x_BHWC = block(x_BHWC)
        return x_BHWC.permute(0, 3, 1, 2)


class Projection(nn.Module):
    """A 3 x 3 convolution from the image to the first features."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(cin, cout, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Halve(nn.Module):
    """(B, C, H, W) to (B, 2C, H / 2, W / 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Double(nn.Module):
    """(B, C, H, W) to (B, C / 2, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
