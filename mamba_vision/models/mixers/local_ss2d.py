"""LocalVMamba's layer (Huang et al., arXiv 2403.09338): VMamba's SS2D over chosen directions, attended to by channel.

Legend: B batch, H, W rows and columns, K directions, T = H * W tokens, D inner width.
"""

from torch import Tensor

from mamba_vision.kernels import ordered_scan
from mamba_vision.models.mixers.bi_attention import BiAttention
from mamba_vision.models.mixers.direction_merge import DirectionMerge
from mamba_vision.models.mixers.ss2d import SS2D
from mamba_vision.registry import MIXERS
from mamba_vision.scan_orders import fold, grid_orders, return_as_published, unfold


@MIXERS.register_module()
class LocalSS2D(SS2D):
    """Scans along K orders of the map's pixels, each times its channel attention, added.

    Args:
        d_model: width of the tokens.
        scan: config of the scan order; there are as many parameter sets as it has directions.
        search: weigh the directions, to find which ones count (`DirectionMerge`).
        options: of `SS2D`.
    """

    def __init__(self, d_model: int, scan: dict | None = None, search: bool = False, **options) -> None:
        super().__init__(d_model, scan=scan or {"type": "local"}, **options)
        self.multi_scan = DirectionMerge(self.scan.n_directions, search, BiAttention(self.d_inner))

    def extra_repr(self) -> str:
        return f"directions={' '.join(self.scan.labels)!r}"

    def mix(self, x_BHWD: Tensor) -> Tensor:
        orders = grid_orders(self.scan, tuple(x_BHWD.shape[1:3]), x_BHWD.device)
        lines = fold(x_BHWD.flatten(1, 2), orders)  # all of the map, but for orders that read each line by itself
        y_BKTD = return_as_published(ordered_scan(**self._arguments(lines), order=orders.indices, merge="none"), orders)
        if orders.sequence_axes is not None:
            y_BKTD = unfold(y_BKTD.transpose(1, 2), orders).transpose(1, 2)
        return self.multi_scan(y_BKTD).view(x_BHWD.shape)
