"""FusionMamba (Peng et al., IEEE TGRS 2024, arXiv 2404.07932): sharpening few-pixel images of many bands by a guide.

A low-resolution multi- or hyperspectral image (MS) takes on the detail of a panchromatic or RGB image (PAN). Two
U-shaped branches, spatial and spectral, meet in a fusion block at every level. Legend: B batch, C features, H, W rows
and columns of the guide, s scale, L = H * W tokens. Names of weights are the published ones but for a spelling.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.fusion_resampling import Doubling, Halving
from mamba_vision.models.layers.options import one_of
from mamba_vision.models.layers.padding import crop_to, pad_to
from mamba_vision.models.mixers.fusion_ssm import FusionSSM
from mamba_vision.registry import MODELS

_PAN = dict(dim=32, guide_channels=1, upsampler="pixelshuffle")
# With hundreds of bands, the learned enlargement alone would have millions of weights. The authors' network for them is
# not published; this one is ours, of about the size that the paper states (0.44 to 0.51 million).
_HYPER = dict(dim=24, upsampler="bicubic")
ARCHS = {
    "wv3": dict(_PAN, bands=8),
    "gf2": dict(_PAN, bands=4),
    "qb": dict(_PAN, bands=4),
    "pavia": dict(_HYPER, bands=102, guide_channels=1),
    "botswana": dict(_HYPER, bands=145, guide_channels=1),
    "wdc": dict(_HYPER, bands=191, guide_channels=1),
    "cave": dict(_HYPER, bands=31, guide_channels=3),
    # for tests and demonstrations
    "tiny": dict(dim=8, bands=4, guide_channels=1, upsampler="pixelshuffle"),
    "tiny_hyper": dict(dim=8, bands=12, guide_channels=3, upsampler="bicubic"),
}
PARAMETERS = {
    "wv3": 735_401, "gf2": 726_181, "qb": 726_181,
    "pavia": 482_623, "botswana": 501_242, "wdc": 521_160, "cave": 452_312,
}  # fmt: skip
UPSAMPLERS = ("pixelshuffle", "bicubic")
STRIDE = 4  # of the deepest level


@MODELS.register_module()
class FusionMamba(Network):
    """Sharpens images by a guide; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of the settings below.
        dim: width of the finest level; that of the levels below is twice and four times as large.
        bands: channels of the image to sharpen.
        guide_channels: 1 (panchromatic), 3 (RGB) or any other number.
        scale: s, how many times larger the guide is, on both axes.
        depth: layers of each branch before every fusion.
        upsampler: 'pixelshuffle' enlarges the image by a learned convolution (published), 'bicubic' by interpolation.
        init_cfg: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes published files.

    Shape:
        image (B, bands, H / s, W / s) and guide (B, guide_channels, H, W) in [0, 1] to (B, bands, H, W), not clamped.

    Raises:
        ValueError: a setting is missing, unknown or has a bad value.
    """

    img_size = (64, 64)  # of the guide, in published training
    published_renames = (("upsample.upsamle.**", "upsample.**"),)

    def __init__(
        self,
        arch: str | dict | None = None,
        dim: int | None = None,
        bands: int | None = None,
        guide_channels: int | None = None,
        scale: int | None = None,
        depth: int | None = None,
        upsampler: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(dim=dim, bands=bands, guide_channels=guide_channels, scale=scale, depth=depth, upsampler=upsampler)
        s = arch_settings("FusionMamba", ARCHS, arch, given, dict(scale=4, depth=1, upsampler="pixelshuffle"))
        one_of("upsampler", s["upsampler"], UPSAMPLERS)
        for name in ("dim", "bands", "guide_channels", "scale", "depth"):
            if not isinstance(s[name], int) or s[name] < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, found {s[name]!r}")
        self.bands, self.guide_channels, self.scale = s["bands"], s["guide_channels"], s["scale"]
        width, depth = s["dim"], s["depth"]
        self.upsample = None
        if s["upsampler"] == "pixelshuffle":
            convolution = nn.Conv2d(self.bands, self.bands * self.scale**2, 3, padding=1, bias=False)
            self.upsample = nn.Sequential(convolution, nn.PixelShuffle(self.scale))
        self.raise_ms_dim = nn.Sequential(nn.Conv2d(self.bands, width, 3, padding=1), nn.LeakyReLU())
        self.raise_pan_dim = nn.Sequential(nn.Conv2d(self.guide_channels, width, 3, padding=1), nn.LeakyReLU())
        self.stage0 = Stage(width, depth, Halving(width, 2 * width))
        self.stage1 = Stage(2 * width, depth, Halving(2 * width, 4 * width))
        self.stage2 = Stage(4 * width, depth, Doubling(4 * width, 2 * width))
        self.stage3 = Stage(2 * width, depth, Doubling(2 * width, width))
        self.stage4 = FusionBody(width, depth, final=True)
        self.spe_attn = SpectralAttention(width)
        self.to_hrms = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(width, self.bands, 3, padding=1)
        )

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """The image `ms` (B, bands, H / s, W / s) at the resolution of the guide `pan` (B, guide_channels, H, W).

        Sizes that the levels do not divide are padded at their far ends by repeated edges.

        Raises:
            ValueError: wrong number of axes, channels or pixels.
        """
        self._check(ms, pan)
        size = tuple(pan.shape[2:])
        multiple = next(m for m in range(1, STRIDE + 1) if m * self.scale % STRIDE == 0)  # of the image's pixels
        small = tuple(-(-side // multiple) * multiple for side in ms.shape[2:])
        ms, pan = pad_to(ms, small), pad_to(pan, tuple(self.scale * side for side in small))

        enlarged = self.enlarge(ms)
        spe, spa = self.raise_ms_dim(enlarged), self.raise_pan_dim(pan)
        spa, spe, spa_skip0, spe_skip0 = self.stage0(spa, spe)
        spa, spe, spa_skip1, spe_skip1 = self.stage1(spa, spe)
        spa, spe, *_ = self.stage2(spa, spe, spa_skip1, spe_skip1)
        spa, spe, *_ = self.stage3(spa, spe, spa_skip0, spe_skip0)
        return crop_to(self.to_hrms(self.stage4(spa, spe)) * self.spe_attn(ms) + enlarged, size)

    def input_shapes(self, size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """Shapes of one image and its guide, without the batch, where the guide has `size` rows and columns.

        Raises:
            ValueError: the scale does not divide the size.
        """
        if any(side % self.scale for side in size):
            raise ValueError(f"size: found {tuple(size)}, expected multiples of the scale {self.scale}")
        small = tuple(side // self.scale for side in size)
        return (self.bands, *small), (self.guide_channels, *size)

    def enlarge(self, ms: Tensor) -> Tensor:
        """The image s times larger, before the guide's detail is added."""
        if self.upsample is not None:
            return self.upsample(ms)
        return F.interpolate(ms, scale_factor=float(self.scale), mode="bicubic", align_corners=False)

    def _check(self, ms: Tensor, pan: Tensor) -> None:
        for name, image, channels in (("ms", ms, self.bands), ("pan", pan, self.guide_channels)):
            if image.dim() != 4 or image.shape[1] != channels or 0 in image.shape[2:]:
                found = tuple(image.shape)
                raise ValueError(f"{name}: found shape {found}, expected (batch, {channels}, height, width)")
        want = (ms.shape[0], *(self.scale * side for side in ms.shape[2:]))
        if (pan.shape[0], *pan.shape[2:]) != want:
            raise ValueError(
                f"pan: found {tuple(pan.shape)}, expected a batch of {want[0]} with {want[1]} x {want[2]} pixels, "
                f"{self.scale} times those of ms, {tuple(ms.shape)}"
            )


class FusionBody(nn.Module):
    """Layers of each branch, then each branch steered by the other, and what they agree on.

    Args:
        dim: width C.
        depth: layers of each branch before the fusion.
        final: give the fused map alone.

    Shape:
        two maps (B, C, H, W) to two such maps, or to one if `final`.
    """

    def __init__(self, dim: int, depth: int = 1, final: bool = False) -> None:
        super().__init__()
        self.final = final
        self.spa_mamba_layers = nn.ModuleList(NormedMixer(dim) for _ in range(depth))
        self.spe_mamba_layers = nn.ModuleList(NormedMixer(dim) for _ in range(depth))
        self.spa_cross_mamba, self.spe_cross_mamba = NormedCrossMixer(dim), NormedCrossMixer(dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, pan: Tensor, ms: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        grid = tuple(pan.shape[2:])
        spa_BLC, spe_BLC = (t.flatten(2).transpose(1, 2) for t in (pan, ms))
        for spa_layer, spe_layer in zip(self.spa_mamba_layers, self.spe_mamba_layers):
            spa_BLC, spe_BLC = spa_layer(spa_BLC, grid), spe_layer(spe_BLC, grid)
        agreed_BLC = (self.spa_cross_mamba(spa_BLC, spe_BLC, grid) + self.spe_cross_mamba(spe_BLC, spa_BLC, grid)) / 2
        fused_BLC = self.out_proj(agreed_BLC)
        results = (fused_BLC,) if self.final else ((spa_BLC + fused_BLC) / 2, (spe_BLC + fused_BLC) / 2)
        maps = tuple(t.transpose(1, 2).unflatten(2, grid) for t in results)
        return maps[0] if self.final else maps


class Stage(nn.Module):
    """A fusion body, and one change of scale that both branches go through."""

    def __init__(self, dim: int, depth: int, sample: nn.Module) -> None:
        super().__init__()
        self.fm, self.sample = FusionBody(dim, depth), sample

    def forward(self, pan: Tensor, ms: Tensor, *skips: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both branches at the next scale, and before the change of scale. `skips`: what is added on the way up."""
        pan, ms = self.fm(pan, ms)
        if skips:
            return self.sample(pan, skips[0]), self.sample(ms, skips[1]), pan, ms
        return self.sample(pan), self.sample(ms), pan, ms


class NormedMixer(nn.Module):
    """x + mixer(norm(x)), tokens (B, L, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.block = nn.LayerNorm(dim), FusionSSM(dim)

    def forward(self, x_BLC: Tensor, grid: tuple[int, int]) -> Tensor:
        return x_BLC + self.block(self.norm(x_BLC), grid=grid)


class NormedCrossMixer(nn.Module):
    """x + mixer(norm(x), steered by norm(other)), tokens (B, L, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm0, self.norm1, self.block = nn.LayerNorm(dim), nn.LayerNorm(dim), FusionSSM(dim, two_inputs=True)

    def forward(self, x_BLC: Tensor, other_BLC: Tensor, grid: tuple[int, int]) -> Tensor:
        return x_BLC + self.block(self.norm0(x_BLC), self.norm1(other_BLC), grid)


class SpectralAttention(nn.Module):
    """A weight for every band, from the sequence of the bands' maxima: (B, bands, h, w) to (B, bands, 1, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        mixer = FusionSSM(width, scan={"type": "bidirectional"})
        self.block = nn.Sequential(nn.Linear(1, width), nn.LayerNorm(width), mixer, nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, ms: Tensor) -> Tensor:
        return self.block(ms.amax(dim=(2, 3)).unsqueeze(-1)).unsqueeze(-1)
