"""LocalVMamba (Huang et al., arXiv 2403.09338): four stages of VMamba's first blocks, which scan in four directions
chosen for each layer, by rows, columns and windows. With `search` it is the supernet that chooses them.

Maps stay channels-last, (B, H, W, C), from the patch embedding to the output norms; images come and features go as
(B, C, H, W). Parameters have their published names.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mamba_vision.models.base import Network
from mamba_vision.models.layers.arch import arch_settings
from mamba_vision.models.layers.drop_path import drop_path_rates
from mamba_vision.models.layers.layer_depth import stage_depth
from mamba_vision.models.layers.local_directions import Directions, layer_scans
from mamba_vision.models.layers.options import check_image, checked_frozen, checked_indices
from mamba_vision.models.layers.vss_block import VSSBlock
from mamba_vision.models.layers.vss_stage import VSSStage
from mamba_vision.models.layers.vss_stems import make_downsample, patch_embed_v1
from mamba_vision.registry import MODELS
from mamba_vision.scan_orders.local import CANDIDATES

ARCHS = {
    "test": dict(dims=16, depths=(1, 1, 2, 1)),
    "tiny": dict(dims=96, depths=(2, 2, 9, 2), directions="local_vmamba_tiny"),
    "small": dict(dims=96, depths=(2, 2, 27, 2), directions="local_vmamba_small"),
    "supernet_tiny": dict(dims=32, depths=(2, 2, 9, 2), search=True),
    "supernet_small": dict(dims=32, depths=(2, 2, 27, 2), search=True),
}
# Published, with the 1000-class head of ImageNet.
PARAMETERS = {"tiny": 25_527_160, "small": 49_748_536, "supernet_tiny": 4_576_656, "supernet_small": 9_148_512}


@MODELS.register_module()
class LocalVMamba(Network):
    """LocalVMamba backbone; a setting given beside `arch` goes before the arch's.

    Args:
        arch: a name of `ARCHS`, or a dict of dims, depths, directions and search.
        in_channels: channels of the image.
        out_indices: stages whose maps are returned.
        dims: width of the first stage, doubling from stage to stage, or of every stage.
        depths: blocks of every stage.
        directions: of every layer, see `layers.local_directions.directions_by_layer`.
        search: make the supernet: every layer scans in all `candidates` and weighs them. None: as `arch` says, and no
            where `directions` are given.
        candidates: what a supernet chooses from.
        published_reversal: on maps that are not square, published code returns column scans to wrong places, and its
            weights are used to it. False: right.
        scan: config of any other scan order, for every layer.
        patch_size: stride of the patch embedding; what is left over at the right and bottom is dropped.
        mixer: more options of the mixer, `LocalSS2D`.
        drop_path_rate: highest rate of dropping a block's result.
        frozen_stages: that many stages are frozen, and what is before them; 0 freezes the patch embedding; -1 nothing.
        with_cp: recompute blocks in backward to save memory.
        init_cfg: MMEngine's.

    Shape:
        (B, in_channels, height, width) to a tuple of (B, C, H, W): stage i before its downsampling, normed by
        `outnorm{i}`, at stride patch_size * 2^i (odd sizes round up).

    Raises:
        ValueError: an unknown arch or setting, options that exclude each other, an out index that is no stage, or an
            image smaller than a patch.
    """

    published_head = (("classifier.head.*", "head.fc.*"),)

    def __init__(
        self,
        arch: str | dict | None = "tiny",
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        dims: int | Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        directions: Directions = None,
        search: bool | None = None,
        candidates: Sequence[str] = CANDIDATES,
        published_reversal: bool = True,
        scan: dict | str | None = None,
        patch_size: int = 4,
        mixer: dict | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(dims=dims, depths=depths, directions=directions, search=search)
        s = arch_settings("LocalVMamba", ARCHS, arch, given, dict(directions=None, search=False))
        stages = range(len(s["depths"]))
        self.dims = [s["dims"] * 2**i for i in stages] if isinstance(s["dims"], int) else list(s["dims"])
        self.depths, self.embed_dims, self.patch_size = tuple(s["depths"]), self.dims[-1], patch_size
        if len(self.dims) != len(self.depths):
            raise ValueError(f"dims: found {len(self.dims)} widths, expected one for each of {len(self.depths)} stages")
        self.out_indices, self.in_channels = checked_indices(out_indices, len(self.depths)), in_channels
        self.frozen_stages = checked_frozen(frozen_stages, len(self.depths), "stages")

        self.patch_embed = patch_embed_v1(in_channels, self.dims[0], patch_size, "ln")
        layers = sum(self.depths)
        scans = layer_scans(
            s, layers, directions, search, candidates, scan, published_reversal=published_reversal
        )  # fmt: skip
        mixers = iter({"type": "LocalSS2D", **(mixer or {}), **own} for own in scans)
        rates = iter(drop_path_rates(drop_path_rate, layers))
        self.layers = nn.ModuleList()
        for i, depth in enumerate(self.depths):
            blocks = [
                VSSBlock(self.dims[i], next(mixers), "ln", next(rates), mlp_ratio=0.0) for _ in range(depth)
            ]  # fmt: skip
            last = i + 1 == len(self.depths)
            step = nn.Identity() if last else make_downsample("v1", self.dims[i], self.dims[i + 1], "ln")
            self.layers.append(VSSStage(blocks, step, with_cp))
        for i in self.out_indices:
            self.add_module(f"outnorm{i}", nn.LayerNorm(self.dims[i]))

        # As a classifier's backbone, its norm before the pooling is ours behind the last stage.
        as_classifier = self.out_indices == (len(self.depths) - 1,)
        self.published_renames = (("classifier.norm.*", f"outnorm{self.out_indices[0]}.*"),) if as_classifier else ()
        self.published_ignored = ("classifier.head.*",) if as_classifier else ("classifier.**",)
        self._init_parameters()
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        check_image(x, self.in_channels)
        if min(x.shape[-2:]) < self.patch_size:
            raise ValueError(f"image: found {tuple(x.shape[-2:])}, expected at least {self.patch_size} pixels a side")
        x_BHWC, outs = self.patch_embed(x), []
        for i, stage in enumerate(self.layers):
            feature_BHWC, x_BHWC = stage(x_BHWC)
            if i in self.out_indices:
                normed_BHWC = getattr(self, f"outnorm{i}")(feature_BHWC)
                outs.append(normed_BHWC.permute(0, 3, 1, 2).contiguous())
        return tuple(outs)

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """(depth of a parameter, number of depths) for layer-wise decay: embedding 0, then block by block, norms last.

        A downsampling has the depth of the block behind it.
        """
        return stage_depth(param_name, prefix, self.depths)

    def train(self, mode: bool = True) -> "LocalVMamba":
        super().train(mode)
        self._freeze()
        return self

    def _init_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        norms = [getattr(self, f"outnorm{i}") for i in self.out_indices if i < self.frozen_stages]
        for module in (self.patch_embed, *self.layers[: self.frozen_stages], *norms):
            module.eval().requires_grad_(False)
