"""One scale of a hierarchical network: blocks, then the step to the next scale."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class VSSStage(nn.Module):
    """Blocks on one scale, then the step to the next. (B, H, W, C) to the blocks' result and the next stage's input.

    Args:
        blocks: from (B, H, W, C) to the same.
        downsample: the step; Identity behind the last stage.
        with_cp: recompute blocks in backward to save memory.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module, with_cp: bool = False) -> None:
        super().__init__()
        self.blocks, self.downsample, self.with_cp = nn.ModuleList(blocks), downsample, with_cp

    def forward(self, x_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            if self.with_cp and self.training and x_BHWC.requires_grad:
                x_BHWC = checkpoint(block, x_BHWC, use_reentrant=False)
            else:
                x_BHWC = block(x_BHWC)
        return x_BHWC, self.downsample(x_BHWC)
