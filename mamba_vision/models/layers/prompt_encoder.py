"""Boxes and points as tokens, and as a map over the patches.

Legend: B batch, K boxes, N points, P = 2 K + N + 2 prompt tokens, C channels, H, W the grid of patches.
Coordinates are pixels, x before y. Shapes alone decide what is computed, so that the whole can be exported.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PromptEncoder(nn.Module):
    """Sparse tokens and a map of the patches for boxes and points.

    A box gives a token a corner, a point one: random Fourier features (Tancik et al., arXiv 2006.10739) of the place,
    and what it is. Two more tokens stand for the absence of prompts. All are always there; a mask says which count.

    The map tells each patch how much of it boxes cover, and how near the nearest point of either label is: whether it
    lies here (`nearness`), and if not, how far off (`closeness`). Without the points in it, scans learn very slowly to
    find a point's place from its token: measured on the slices of the micro config, where the distance helped further.

    Args:
        channels: C, even.
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: an odd number of channels.
    """

    def __init__(self, channels: int, patch_size: int = 16) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels: found {channels}, expected an even number")
        self.patch_size = patch_size
        self.register_buffer("frequencies", torch.randn(2, channels // 2))
        self.corner_tokens = nn.Parameter(torch.empty(2, channels))  # top left, bottom right
        self.label_tokens = nn.Parameter(torch.empty(2, channels))  # background, foreground
        self.none_tokens = nn.Parameter(torch.empty(2, channels))
        self.no_cover_token = nn.Parameter(torch.empty(channels))
        for token in self.parameters():
            nn.init.normal_(token, std=0.02)
        self.norm = nn.LayerNorm(channels)
        self.cover = nn.Conv2d(5, channels, 1)  # boxes; nearness of points not meant, meant; closeness of the same

    def no_weight_decay(self) -> set[str]:
        """The learned tokens."""
        return {name for name, _ in self.named_parameters() if name.endswith(("_token", "_tokens"))}

    def forward(
        self, boxes_BK4: Tensor, box_mask_BK: Tensor, points_BN2: Tensor, labels_BN: Tensor, point_mask_BN: Tensor,
        size: tuple[int, int], grid: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Tokens (B, P, C), which of them count (B, P), and the map (B, C, H, W).

        Args:
            boxes_BK4: corners x1, y1, x2, y2, half-open; K and N may be 0. A box without area is a foreground point.
            box_mask_BK, point_mask_BN: bool, True for real ones.
            points_BN2, labels_BN: numbers of pixels, and 1 for foreground, 0 for background.
            size: height and width of the image without padding, to which boxes are clipped.
            grid: of the patches, padding included.
        """
        clipped_BK4 = torch.stack(
            [c.clamp(0, limit) for c, limit in zip(boxes_BK4.unbind(-1), (*size[::-1], *size[::-1]))], dim=-1
        )
        tokens_BPC, real_BP = self._tokens(
            clipped_BK4, box_mask_BK, self._encode(points_BN2 + 0.5, grid), labels_BN, point_mask_BN, grid
        )
        return (
            self.norm(tokens_BPC),
            real_BP,
            self._dense(clipped_BK4, box_mask_BK, points_BN2, labels_BN, point_mask_BN, grid),
        )

    def _tokens(
        self, boxes_BK4: Tensor, box_mask_BK: Tensor, points_BNC: Tensor, labels_BN: Tensor, point_mask_BN: Tensor,
        grid: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        near_BK2, far_BK2 = boxes_BK4[..., :2], boxes_BK4[..., 2:]
        flat_BK1 = (far_BK2 <= near_BK2).any(-1, keepdim=True)
        first_BKC = torch.where(
            flat_BK1,
            self._encode((near_BK2 + far_BK2) / 2, grid) + self.label_tokens[1],
            self._encode(near_BK2, grid) + self.corner_tokens[0],
        )
        second_BKC = self._encode(far_BK2, grid) + self.corner_tokens[1]
        second_mask_BK = box_mask_BK & ~flat_BK1.squeeze(-1)
        foreground_BN1 = labels_BN.unsqueeze(-1) > 0
        points_BNC = points_BNC + torch.where(foreground_BN1, self.label_tokens[1], self.label_tokens[0])
        tokens_BPC = torch.cat([torch.stack([first_BKC, second_BKC], 2).flatten(1, 2), points_BNC], 1)
        real_BP = torch.cat([torch.stack([box_mask_BK, second_mask_BK], 2).flatten(1, 2), point_mask_BN], 1)
        none_B2C = self.none_tokens.to(tokens_BPC.dtype).expand(tokens_BPC.shape[0], -1, -1)
        absent_B2 = ~real_BP.any(1, keepdim=True).expand(-1, 2)
        return torch.cat([tokens_BPC, none_B2C], 1), torch.cat([real_BP, absent_B2], 1)

    def _encode(self, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """(..., 2) in pixels to (..., C): sines and cosines of places in [-1, 1], in at least float32.

        The padded image is the unit, so that a place means the same to the prompts and to the tokens of the patches.
        """
        wide = torch.promote_types(self.frequencies.dtype, torch.float32)
        across, down = self.frequencies.to(wide)
        x = 2 * places[..., 0:1].to(wide) / (grid[1] * self.patch_size) - 1
        y = 2 * places[..., 1:2].to(wide) / (grid[0] * self.patch_size) - 1
        turns = 2 * math.pi * (x * across + y * down)  # no matrix product: autocast would round it
        return torch.cat([turns.sin(), turns.cos()], dim=-1)

    def _dense(
        self, boxes_BK4: Tensor, box_mask_BK: Tensor, points_BN2: Tensor, labels_BN: Tensor, point_mask_BN: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:  # fmt: skip
        # A sum, not a view of the parameter, which would ask for gradients even where nobody computes any.
        nowhere_BCHW = self.no_cover_token[:, None, None] + self.no_cover_token.new_zeros(boxes_BK4.shape[0], 1, *grid)
        if boxes_BK4.shape[1] + points_BN2.shape[1] == 0:
            return nowhere_BCHW
        # A box without area is a point here too.
        flat_BK = (boxes_BK4[..., 2:] <= boxes_BK4[..., :2]).any(-1)
        places_BM2 = torch.cat([(boxes_BK4[..., :2] + boxes_BK4[..., 2:]) / 2 - 0.5, points_BN2], 1)
        meant_BM = torch.cat([torch.ones_like(flat_BK), labels_BN > 0], 1)
        real_BM = torch.cat([box_mask_BK & flat_BK, point_mask_BN], 1)
        kinds = [(real_BM & ~meant_BM)[..., None, None], (real_BM & meant_BM)[..., None, None]]
        maps = [coverage(boxes_BK4, grid, self.patch_size) * box_mask_BK[..., None, None]]
        for measure in (nearness, closeness):
            near_BMHW = measure(places_BM2, grid, self.patch_size)
            maps += [near_BMHW * kind for kind in kinds]
        highest = [F.pad(one, (0, 0, 0, 0, 0, 1)).amax(1) for one in maps]  # one more, of zeros: there may be none
        cover_BCHW = self.cover(torch.stack(highest, 1).to(self.cover.weight.dtype))
        given_B = box_mask_BK.any(1) | point_mask_BN.any(1)
        return torch.where(given_B[:, None, None, None], cover_BCHW, nowhere_BCHW.to(cover_BCHW.dtype))


def nearness(points_BN2: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """How near each point is to the middle of each patch, (B, N, H, W): 1 there, 0 from the middles around it on."""
    slopes = []
    for axis, count in ((1, grid[0]), (0, grid[1])):
        middle = patch_size * (torch.arange(count, device=points_BN2.device, dtype=points_BN2.dtype) + 0.5)
        slopes.append((1 - (points_BN2[..., axis, None] + 0.5 - middle).abs() / patch_size).clamp(min=0))
    return slopes[0].unsqueeze(-1) * slopes[1].unsqueeze(-2)


def closeness(points_BN2: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """1 / (1 + distance) of each point from the middle of each patch, in patches, (B, N, H, W)."""
    squares = []
    for axis, count in ((1, grid[0]), (0, grid[1])):
        middle = patch_size * (torch.arange(count, device=points_BN2.device, dtype=points_BN2.dtype) + 0.5)
        squares.append(((points_BN2[..., axis, None] + 0.5 - middle) / patch_size).square())
    return 1 / (1 + (squares[0].unsqueeze(-1) + squares[1].unsqueeze(-2)).sqrt())


def coverage(boxes_BK4: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """The share of each patch that each box covers, (B, K, H, W), exact."""
    lengths = []
    for axis, count in ((1, grid[0]), (0, grid[1])):
        near = patch_size * torch.arange(count, device=boxes_BK4.device, dtype=boxes_BK4.dtype)
        inside = torch.minimum(boxes_BK4[..., axis + 2, None], near + patch_size)
        lengths.append((inside - torch.maximum(boxes_BK4[..., axis, None], near)).clamp(min=0) / patch_size)
    return lengths[0].unsqueeze(-1) * lengths[1].unsqueeze(-2)
