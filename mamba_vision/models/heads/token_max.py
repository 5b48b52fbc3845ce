"""The classification head of Vim's final_pool_type 'max'."""

from mmpretrain.models.heads import LinearClsHead
from torch import Tensor

from mamba_vision.registry import MODELS


@MODELS.register_module()
class TokenMaxClsHead(LinearClsHead):
    """Scores every token and takes the largest score of each class; for backbones that return all tokens.

    Shape:
        a tuple whose last entry is (B, L, C) to (B, num_classes).
    """

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return super().forward(feats).amax(dim=1)
