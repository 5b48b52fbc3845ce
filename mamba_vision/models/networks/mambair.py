"""MambaIR (Guo et al., ECCV 2024, arXiv 2402.15648): image restoration by residual state space blocks.

Super-resolution, real super-resolution, denoising and removal of JPEG artefacts differ in the head alone. Any image
size works without padding. Names of weights are the published ones but for those in `published_renames`.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.dimensions import per_axis
from mamba_vision.models.layers.drop_path import drop_path_rates
from mamba_vision.models.layers.options import check_image
from mamba_vision.models.layers.residual_state_space import ResidualStateSpaceBlock
from mamba_vision.models.layers.restoration_frame import FRAME_RENAMES, ResidualGroup, RestorationFrame
from mamba_vision.registry import MODELS

_CLASSIC = dict(embed_dim=180, depths=(6,) * 6, d_state=16, mlp_ratio=2.0, upsampler="pixelshuffle")
_LIGHT = dict(embed_dim=60, depths=(6,) * 4, d_state=10, mlp_ratio=1.2, upsampler="pixelshuffledirect")
_SAME_SIZE = dict(embed_dim=180, depths=(6,) * 6, d_state=16, mlp_ratio=1.2, upsampler="none", upscale=1)
ARCHS = {
    "sr_x2": dict(_CLASSIC, upscale=2),
    "sr_x3": dict(_CLASSIC, upscale=3),
    "sr_x4": dict(_CLASSIC, upscale=4),
    "realsr_x4": dict(_CLASSIC, upscale=4),
    "lightsr_x2": dict(_LIGHT, upscale=2),
    "lightsr_x3": dict(_LIGHT, upscale=3),
    "lightsr_x4": dict(_LIGHT, upscale=4),
    "denoise_color": dict(_SAME_SIZE, in_channels=3),
    "denoise_gray": dict(_SAME_SIZE, in_channels=1),
    "jpeg_gray": dict(_SAME_SIZE, in_channels=1),
    "jpeg_color": dict(_SAME_SIZE, in_channels=3),
    # for tests and demonstrations
    "tiny": dict(embed_dim=32, depths=(1, 1), d_state=4, mlp_ratio=1.2, upsampler="pixelshuffledirect", upscale=2),
    "tiny_denoise": dict(embed_dim=32, depths=(1, 1), d_state=4, mlp_ratio=1.2, upsampler="none", upscale=1),
}
# Of the published variants.
PARAMETERS = {
    "sr_x2": 20_421_863, "sr_x3": 20_606_503, "sr_x4": 20_569_575, "realsr_x4": 20_569_575,
    "lightsr_x2": 905_016, "lightsr_x3": 913_131, "lightsr_x4": 924_492,
    "denoise_color": 15_777_507, "jpeg_gray": 15_771_025,
}  # fmt: skip


@MODELS.register_module()
class MambaIR(RestorationFrame):
    """MambaIR; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of the settings below.
        in_channels: 3 (RGB) or 1 (gray).
        embed_dim: width C of the tokens, at least 30.
        depths: blocks of every residual group.
        d_state: states of the scans.
        mlp_ratio: inner width of the scans over C (the published name; there is no MLP).
        upscale: how many times larger the result is.
        upsampler: 'pixelshuffle', 'pixelshuffledirect' (which also takes the light convolution branch), 'nearest+conv',
            or 'none' for results of the input's size.
        img_range: factor on the values inside.
        resi_connection: '1conv' or '3conv'.
        drop_path_rate: of the last block; grows linearly from 0.
        ape: learned positions, which fix the size of the image to `img_size`; all published weights are without.
        img_size: rows and columns of these positions, a number or two.
        patch_norm: LayerNorm of the first tokens; all published weights are with.
        with_cp: gradient checkpointing of the blocks, for less memory in training.
        init_cfg: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes published files.

    Shape:
        (B, in_channels, H, W) in [0, 1] to (B, in_channels, upscale * H, upscale * W).

    Raises:
        ValueError: a setting is missing, unknown or has a bad value.
    """

    published_renames = (*FRAME_RENAMES, ("layers.*.residual_group.blocks.**", "layers.*.blocks.**"))

    def __init__(
        self,
        arch: str | dict | None = None,
        in_channels: int | None = None,
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        d_state: int | None = None,
        mlp_ratio: float | None = None,
        upscale: int | None = None,
        upsampler: str | None = None,
        img_range: float | None = None,
        resi_connection: str | None = None,
        drop_path_rate: float | None = None,
        ape: bool | None = None,
        img_size: int | Sequence[int] | None = None,
        patch_norm: bool | None = None,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        given = dict(
            in_channels=in_channels, embed_dim=embed_dim, depths=depths, d_state=d_state, mlp_ratio=mlp_ratio,
            upscale=upscale, upsampler=upsampler, img_range=img_range, resi_connection=resi_connection,
            drop_path_rate=drop_path_rate, ape=ape, img_size=img_size, patch_norm=patch_norm,
        )  # fmt: skip
        defaults = dict(
            in_channels=3, img_range=1.0, resi_connection="1conv", drop_path_rate=0.1, ape=False, img_size=64,
            patch_norm=True,
        )  # fmt: skip
        s = arch_settings("MambaIR", ARCHS, arch, given, defaults)
        branch = "light" if s["upsampler"] == "pixelshuffledirect" else "classic"
        rates = iter(drop_path_rates(s["drop_path_rate"], sum(s["depths"])))
        groups = [
            ResidualGroup(
                [
                    ResidualStateSpaceBlock(s["embed_dim"], s["d_state"], s["mlp_ratio"], branch, next(rates))
                    for _ in range(depth)
                ],
                s["embed_dim"],
                s["resi_connection"],
                with_cp,
            )
            for depth in s["depths"]
        ]
        super().__init__(
            groups, s["in_channels"], s["embed_dim"], s["upscale"], s["upsampler"], s["img_range"],
            s["resi_connection"], init_cfg, per_axis("img_size", s["img_size"], 2) if s["ape"] else None,
            s["patch_norm"],
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        check_image(x, self.in_channels)
        return self.restore(x, self._body)

    @staticmethod
    def explain_misfit(state: Mapping[str, Tensor]) -> str | None:
        """Why weights that do not fit probably do not: a sentence for the error, or None."""
        if any(name.endswith(".conv_blk.cab.1.attention.1.weight") for name in state):
            return (
                "These are light weights of before 15 October 2024, of another convolution branch and 16 states; the "
                "authors have replaced them"
            )
        if any(".assm.selectiveScan." in name for name in state):
            return "These are weights of MambaIRv2"
        if any(name.startswith("encoder_level1.") for name in state):
            return "These are weights of MambaIRUNet"
        return None

    def _body(self, x_BHWC: Tensor) -> Tensor:
        for group in self.layers:
            x_BHWC = group(x_BHWC)
        return x_BHWC
