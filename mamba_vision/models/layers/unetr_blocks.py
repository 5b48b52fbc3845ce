"""MONAI's UNETR blocks, with norm, sum and activation in one where a kernel can. Names of weights are MONAI's."""

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetResBlock, get_conv_layer
from torch import Tensor, nn

from mamba_vision.models.layers.normed import norm_act, norm_act_conv
from mamba_vision.models.layers.recompute import recomputed
from mamba_vision.models.layers.volume_convs import pointwise

SLOPE = 0.01  # of LeakyReLU in MONAI's blocks


class ResBlock(UnetResBlock):
    """conv - norm - act - conv - norm, plus the input (by a 1x1x1 convolution and a norm where widths differ), act."""

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(*recomputed(self.head, x))

    def head(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is added at the end, and the first convolution: last, as `recomputed` then need not repeat it."""
        skip = norm_act(self.norm3, pointwise(self.conv3.conv, x)) if self.downsample else x
        return skip, self.conv1(x)

    def tail(self, skip: Tensor, y: Tensor) -> Tensor:
        y = norm_act_conv(self.norm1, y, SLOPE, self.conv2)
        return norm_act(self.norm2, y, SLOPE, skip.to(y.dtype))


class BasicBlock(UnetBasicBlock):
    """conv - norm - act, twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(*recomputed(self.head, x))

    def head(self, x: Tensor) -> tuple[Tensor]:
        return (self.conv1(x),)

    def tail(self, y: Tensor) -> Tensor:
        return norm_act(self.norm2, norm_act_conv(self.norm1, y, SLOPE, self.conv2), SLOPE)


class SkipBlock(nn.Module):
    """A block of convolutions of side 3, under MONAI's name `layer`. (B, cin, D, H, W) to (B, cout, D, H, W)."""

    def __init__(self, cin: int, cout: int, norm_name: str | tuple, res_block: bool) -> None:
        super().__init__()
        self.layer = (ResBlock if res_block else BasicBlock)(3, cin, cout, 3, 1, norm_name)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class UpBlock(nn.Module):
    """Twice the size, joined by the skip, and a block. (B, cin, *S), (B, cout, *2S) to (B, cout, *2S)."""

    def __init__(self, cin: int, cout: int, norm_name: str | tuple, res_block: bool) -> None:
        super().__init__()
        self.transp_conv = get_conv_layer(3, cin, cout, kernel_size=2, stride=2, conv_only=True, is_transposed=True)
        self.conv_block = (ResBlock if res_block else BasicBlock)(3, 2 * cout, cout, 3, 1, norm_name)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """What is joined, twice as wide as all else, is not kept for backward."""
        return self.conv_block.tail(*recomputed(lambda *parts: self.conv_block.head(self.join(*parts)), x, skip))

    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        """What the block reads; by itself for callers that can let go of the two."""
        parts = (self.transp_conv(x), skip)
        if x.is_cuda and all(part.is_contiguous(memory_format=torch.channels_last_3d) for part in parts):
            # as rows of channels, whole vectors at a time; along dim 1 PyTorch copies such volumes number by number
            return torch.cat([part.movedim(1, -1) for part in parts], dim=-1).movedim(-1, 1)
        return torch.cat(parts, dim=1)
