"""ProMamba, promptable polyp segmentation (Xie et al., "Prompt-Mamba for polyp segmentation", arXiv 2403.13660).

From the paper: an image encoder of Vision Mamba blocks, a prompt encoder for boxes, blocks that mix image and prompt
tokens by selective scans, a decoder. Neither code nor weights were published, so all sizes and the insides of these
parts are this toolkit's own; configs/promamba/README.md lists them. The encoder takes Vim's published weights.

Legend: B batch, C width, T tokens of patches, P prompt tokens, H, W the grid of patches.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.padding import crop_to
from mamba_vision.models.layers.promamba_decoder import DetailStem, MaskDecoder
from mamba_vision.models.layers.prompt_encoder import PromptEncoder
from mamba_vision.models.layers.prompt_fusion import PromptFusionBlock
from mamba_vision.registry import MODELS

PATCH = 16
ARCHS = {
    "test": dict(embed_dims=32, num_layers=4, fusion_blocks=1, decoder_channels=16, stem_channels=(8, 12, 16)),
    "tiny": dict(embed_dims=192, num_layers=24, fusion_blocks=2, drop_path_rate=0.05),
    "small": dict(embed_dims=384, num_layers=24, fusion_blocks=4, drop_path_rate=0.1),
    "base": dict(embed_dims=768, num_layers=24, fusion_blocks=4, drop_path_rate=0.2),
}
# Counted here; the paper's own were not at hand.
PARAMETERS = {"tiny": 8_584_485, "small": 32_952_551, "base": 123_973_223}


@MODELS.register_module()
class ProMamba(Network):
    """Segments what boxes and points say, or, without any, what it was trained to find.

    Args:
        arch: a name of `ARCHS`, or a dict of the settings below that are None.
        embed_dims: C.
        num_layers: blocks of the encoder, at least 4; features are taken behind each quarter.
        fusion_blocks: blocks that mix image and prompts.
        decoder_channels: width of the decoder, a multiple of 4.
        stem_channels: three widths of the convolutions that see details.
        drop_path_rate: highest rate of dropping a block of the encoder; that of every fusion block.
        in_channels: of the image.
        mixer: options of all mixers, such as d_state.
        scan: order of the patches in all scans; None: row by row, both ways.
        encoder: more options of the encoder, `Vim`: img_size of its position table, with_cp, frozen_stages, or
            init_cfg=dict(type='Pretrained', checkpoint=...) with a file of Vim's weights.
        init_cfg: MMEngine's, for the whole network.

    Shape:
        image (B, in_channels, height, width) and prompts to logits (B, 1, height, width), see `forward`.

    Raises:
        ValueError: a setting out of range.
    """

    # A file of Vim's weights fills the encoder; what is missing then is named by the error, or skipped on request.
    published_renames = tuple(
        (name, f"encoder.{name}") for name in ("layers.**", "patch_embed.**", "pos_embed", "norm_f.*")
    )
    published_ignored = ("cls_token", "head.*", "rope.freqs_*")
    img_size = (352, 352)  # that of the polyp benchmark; any other works

    def __init__(
        self,
        arch: str | Mapping[str, Any] | None = "tiny",
        embed_dims: int | None = None,
        num_layers: int | None = None,
        fusion_blocks: int | None = None,
        decoder_channels: int | None = None,
        stem_channels: Sequence[int] | None = None,
        drop_path_rate: float | None = None,
        in_channels: int = 3,
        mixer: dict | None = None,
        scan: Any = None,
        encoder: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            embed_dims=embed_dims, num_layers=num_layers, fusion_blocks=fusion_blocks,
            decoder_channels=decoder_channels, stem_channels=stem_channels, drop_path_rate=drop_path_rate,
        )  # fmt: skip
        defaults = dict(decoder_channels=128, stem_channels=(32, 64, 96), drop_path_rate=0.0)
        chosen = arch_settings("ProMamba", ARCHS, arch, given, defaults)
        width, depth, blocks, decoder, stem, rate = (chosen[key] for key in given)
        if depth < 4 or blocks < 1:
            raise ValueError(f"expected num_layers >= 4 and fusion_blocks >= 1, found {depth} and {blocks}")
        if len(stem) != 3:
            raise ValueError(f"stem_channels: found {tuple(stem)}, expected three widths")
        self.embed_dims, self.in_channels = width, in_channels
        settings = dict(
            type="mamba_vision.Vim", arch=dict(embed_dims=width, num_layers=depth), in_channels=in_channels,
            class_token="none", out_type="featmap", features="residual", last_feature="add_norm",
            out_indices=tuple(ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)),
            mixer=mixer, scan=scan, drop_path_rate=rate,
        )  # fmt: skip
        if taken := sorted(set(encoder or {}) & (set(settings) | {"patch_size", "stride", "pyramid"})):
            raise ValueError(f"encoder: found {', '.join(taken)}, which ProMamba sets itself")
        self.encoder = MODELS.build({**settings, **(encoder or {})})
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-5) for _ in range(3))  # the last feature has the encoder's
        self.stem = DetailStem(in_channels, stem)
        self.prompts = PromptEncoder(width, PATCH)
        self.fusion = nn.ModuleList(
            PromptFusionBlock(width, mixer, scan, mlp_ratio=2, drop_path=rate) for _ in range(blocks)
        )
        self.decoder = MaskDecoder(width, decoder, details=stem[1:], levels=4)

    def forward(
        self, image: Tensor, boxes: Tensor | None = None, points: Tensor | None = None, labels: Tensor | None = None,
        box_mask: Tensor | None = None, point_mask: Tensor | None = None, deep: bool = False,
    ) -> Tensor | list[Tensor]:  # fmt: skip
        """Logits (B, 1, height, width).

        Args:
            image: (B, in_channels, height, width), any size.
            boxes: (B, K, 4), pixels x1, y1, x2, y2, half-open. What lies in any of them is meant.
            points: (B, N, 2), pixels x, y.
            labels: (B, N), 1 for points of what is meant, 0 for points of what is not.
            box_mask, point_mask: (B, K), (B, N) bool, False for rows that only fill the batch up; None: all are real.
            deep: a list of logits instead, all of the image's size: the result, and those of strides 8 and 16.

        Raises:
            ValueError: prompts whose shapes do not go together.
        """
        features = self.encode(image)
        return self.decode(features, boxes, points, labels, box_mask, point_mask, tuple(image.shape[-2:]), deep)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """What does not depend on prompts: four features (B, C, H, W), then the stem's maps of strides 4 and 8."""
        height, width = image.shape[-2:]
        # Not a remainder of negative numbers, which exported graphs take otherwise than Python.
        image = F.pad(image, (0, (width + PATCH - 1) // PATCH * PATCH - width,
                              0, (height + PATCH - 1) // PATCH * PATCH - height))  # fmt: skip
        maps = self.encoder(image)
        features = [
            norm(feature.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, feature in zip(self.norms, maps[:3])
        ]
        return (*features, maps[3], *self.stem(image))

    def decode(
        self, features: Sequence[Tensor], boxes: Tensor | None = None, points: Tensor | None = None,
        labels: Tensor | None = None, box_mask: Tensor | None = None, point_mask: Tensor | None = None,
        size: tuple[int, int] | None = None, deep: bool = False,
    ) -> Tensor | list[Tensor]:  # fmt: skip
        """Logits from `encode`'s features and prompts, see `forward`.

        Args:
            size: height and width of the image; None: those of the features' grid, padding included.
        """
        *maps, last, s4, s8 = features
        grid = tuple(last.shape[-2:])
        padded = (grid[0] * PATCH, grid[1] * PATCH)
        size = padded if size is None else size
        prompts = checked_prompts(last.shape[0], last.device, boxes, points, labels, box_mask, point_mask)
        tokens_BPC, real_BP, dense_BCHW = self.prompts(*prompts, size, grid)
        image_BTC = (last + dense_BCHW).flatten(2).transpose(1, 2)
        tokens_BPC = tokens_BPC.to(image_BTC.dtype)
        order = self.fusion[0].reading_order(real_BP, grid)
        for block in self.fusion:
            image_BTC, tokens_BPC = block(image_BTC, tokens_BPC, grid, order)
        mixed_BCHW = image_BTC.transpose(1, 2).unflatten(2, grid)
        logits = self.decoder([*maps, mixed_BCHW], s4, s8, tokens_BPC, real_BP)
        logits = [
            crop_to(F.interpolate(one, padded, mode="bilinear", align_corners=False), size)
            for one in (logits if deep else logits[:1])
        ]
        return logits if deep else logits[0]

    def fit_published(self, name: str, value: Tensor) -> Tensor:
        """Vim's position table fitted to the encoder's; other tensors as they are."""
        inner = name.removeprefix("encoder.")
        return value if inner == name else self.encoder.fit_published(inner, value)

    def explain_misfit(self, state: Mapping[str, Tensor]) -> str | None:
        """What to do with a file of Vim's weights."""
        if not any(name.startswith("layers.0.mixer.") for name in state):
            return None
        return (
            "These are weights of Vim, which fill the encoder only: give them as "
            "encoder=dict(init_cfg=dict(type='Pretrained', checkpoint=FILE))"
        )


def checked_prompts(
    batch: int, device: torch.device, boxes: Tensor | None, points: Tensor | None, labels: Tensor | None,
    box_mask: Tensor | None, point_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """boxes (B, K, 4), box_mask (B, K), points (B, N, 2), labels (B, N), point_mask (B, N), with K or N 0 for None.

    Raises:
        ValueError: shapes that do not go together, points without labels, or a mask of nothing.
    """
    if (points is None) != (labels is None):
        raise ValueError("points and labels: expected both or neither")
    for name, mask, rows in (("box_mask", box_mask, boxes), ("point_mask", point_mask, points)):
        if mask is not None and rows is None:
            raise ValueError(f"{name}: found a mask without what it masks")
    boxes = torch.zeros(batch, 0, 4, device=device) if boxes is None else boxes
    points = torch.zeros(batch, 0, 2, device=device) if points is None else points
    labels = torch.zeros(batch, 0, device=device) if labels is None else labels
    everything = dict(dtype=torch.bool, device=device)
    box_mask = torch.ones(boxes.shape[:2], **everything) if box_mask is None else box_mask
    point_mask = torch.ones(points.shape[:2], **everything) if point_mask is None else point_mask
    wanted = {
        "boxes": (boxes, (batch, "K", 4)), "box_mask": (box_mask, (batch, boxes.shape[1])),
        "points": (points, (batch, "N", 2)), "labels": (labels, (batch, points.shape[1])),
        "point_mask": (point_mask, (batch, points.shape[1])),
    }  # fmt: skip
    for name, (value, shape) in wanted.items():
        same = value.dim() == len(shape) and all(
            isinstance(n, str) or found == n for found, n in zip(value.shape, shape)
        )
        if not same:
            raise ValueError(f"{name}: found shape {tuple(value.shape)}, expected ({', '.join(map(str, shape))})")
    return boxes, box_mask, points, labels, point_mask
