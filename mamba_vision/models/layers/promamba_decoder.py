"""ProMamba's stem, which sees the details that patches of 16 pixels lose, and its decoder.

Legend: B batch, C width of the encoder, D of the decoder, P prompt tokens.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mamba_vision.models.mixers.precision import in_float16_region


def conv_norm_act(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, batch norm, GELU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.GELU())


class DetailStem(nn.Module):
    """Three convolutions of stride 2.

    Shape:
        (B, in_channels, height, width) to maps of strides 4 and 8, of the second and third width.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        widths = (in_channels, *channels)
        self.layers = nn.ModuleList(conv_norm_act(a, b, stride=2) for a, b in pairwise(widths))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        s4 = self.layers[1](self.layers[0](image))
        return s4, self.layers[2](s4)


class MaskDecoder(nn.Module):
    """Features of one stride summed, enlarged beside the stem's details; a query made of the prompts adds its product.

    Args:
        channels: C.
        width: D, a multiple of 4.
        details: widths of the stem's maps of strides 4 and 8.
        levels: how many features of stride 16.

    Raises:
        ValueError: a width that 4 does not divide.
    """

    def __init__(self, channels: int, width: int, details: Sequence[int], levels: int = 4) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"decoder_channels: found {width}, expected a multiple of 4")
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in range(levels))
        self.merge = nn.Sequential(conv_norm_act(width, width), conv_norm_act(width, width))
        self.up8 = nn.ConvTranspose2d(width, width, 2, 2)
        self.fuse8 = conv_norm_act(width + details[1], width // 2)
        self.up4 = nn.ConvTranspose2d(width // 2, width // 2, 2, 2)
        self.fuse4 = conv_norm_act(width // 2 + details[0], width // 4)
        self.logit4, self.logit8, self.logit16 = (nn.Conv2d(width // n, 1, 1) for n in (4, 2, 1))
        self.query = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, width // 4))

    def forward(
        self, maps: Sequence[Tensor], s4: Tensor, s8: Tensor, prompts_BPC: Tensor, real_BP: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, 1, ...) at strides 4, 8 and 16.

        Args:
            maps: `levels` features (B, C, ...) of stride 16.
            s4, s8: the stem's.
            prompts_BPC, real_BP: tokens, and those that count.
        """
        y16, query_BD = self._coarse(maps, prompts_BPC, real_BP)
        y8 = self.fuse8(torch.cat([self.up8(y16), s8], 1))
        y4 = self.fuse4(torch.cat([self.up4(y8), s4], 1))
        product = (query_BD[:, :, None, None] * y4).sum(1, keepdim=True)
        return self.logit4(y4) + product, self.logit8(y8), self.logit16(y16)

    def _coarse(self, maps: Sequence[Tensor], prompts_BPC: Tensor, real_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Features of stride 16 and the prompts' query: streams that no norm has bounded yet, so never in float16."""
        if in_float16_region(maps[0]):
            kept = self.logit16.weight.dtype
            with torch.autocast(maps[0].device.type, enabled=False):
                return self._coarse([one.to(kept) for one in maps], prompts_BPC.to(kept), real_BP)
        weights_BP1 = real_BP.unsqueeze(-1).to(prompts_BPC.dtype)
        mean_BC = (prompts_BPC * weights_BP1).sum(1) / weights_BP1.sum(1)
        return self.merge(sum(conv(one) for conv, one in zip(self.lateral, maps))), self.query(mean_BC)
