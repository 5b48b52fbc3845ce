"""The block in which image tokens and prompt tokens read each other by one bidirectional scan.

Legend: B batch, P prompt tokens, T image tokens (row-major over the grid), S = P + T, C channels.
"""

from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mamba_vision.models.layers.mlp import Mlp
from mamba_vision.registry import MIXERS, SCAN_ORDERS
from mamba_vision.scan_orders import Prompted, read_last


class PromptFusionBlock(nn.Module):
    """Scan over [prompts, image, prompts] both ways, depth-wise convolution of the image, perceptron of both.

    A causal scan knows what it has read: with the prompts at both ends every direction reads them before the image.
    The order names each prompt twice, so no copies are made; what they become is the mean of both readings. Tokens that
    only fill a batch up are read last of all, in every direction, and so change nothing.

    Args:
        channels: C.
        mixer: options of the mixer, `BidirectionalMamba` unless it names a type.
        scan: order of the image tokens; None: row by row, forwards and backwards.
        mlp_ratio: inner width of the perceptron over C.
        drop_path: rate of dropping what the scan adds.
    """

    def __init__(
        self, channels: int, mixer: dict | None = None, scan: Any = None, mlp_ratio: float = 2.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.order = SCAN_ORDERS.build(scan or "raster")
        self.both_ways = scan is None
        self.norm = nn.RMSNorm(channels, eps=1e-5)
        kind = {"type": "BidirectionalMamba", **(mixer or {}), "scan": self._prompted(0)}
        self.mixer = MIXERS.build({**kind, "d_model": channels, "_scope_": "mamba_vision"})
        self.drop_path = DropPath(drop_path)
        self.conv_norm = nn.LayerNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(mlp_ratio * channels))
        self.gate = nn.Parameter(torch.ones(()))

    def no_weight_decay(self) -> set[str]:
        """The gate."""
        return {"gate"}

    def reading_order(self, real_BP: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, directions, 2 P + T): the token of each step. `real_BP` is False for prompts that only fill up."""
        indices = self._prompted(real_BP.shape[1])(grid, real_BP.device).indices
        image = real_BP.new_zeros(real_BP.shape[0], grid[0] * grid[1])
        return read_last(indices, torch.cat([~real_BP, image], 1))

    def forward(
        self, image_BTC: Tensor, prompts_BPC: Tensor, grid: tuple[int, int], order: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both kinds of tokens after the block, in their shapes.

        Args:
            image_BTC: tokens of a grid of T patches.
            prompts_BPC: at least one.
            grid: rows and columns.
            order: of `reading_order`, which is the same for all blocks of the same scan.
        """
        count = prompts_BPC.shape[1]
        both_BSC = torch.cat([prompts_BPC, image_BTC], 1)
        mixed_BSC = self.drop_path(self.mixer(self.norm(both_BSC), order))
        prompts_BPC = prompts_BPC + mixed_BSC[:, :count] / 2  # the scan adds up both readings of a prompt
        out_BTC = image_BTC + mixed_BSC[:, count:]
        out_BTC = out_BTC + self._convolve(self.conv_norm(out_BTC), grid)
        out_BTC = out_BTC + self.mlp(self.mlp_norm(out_BTC))
        prompts_BPC = prompts_BPC + self.mlp(self.mlp_norm(prompts_BPC))
        return image_BTC + torch.tanh(self.gate) * (out_BTC - image_BTC), prompts_BPC

    def _prompted(self, count: int) -> Prompted:
        return Prompted(prompts=count, order=self.order, both_ways=self.both_ways)

    def _convolve(self, x_BTC: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.conv(x_BTC.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
