"""How LocalMamba merges what its scan directions say, and how its search chooses among them (arXiv 2403.09338, 3.2).

Legend: B batch, K directions, T tokens, E channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.models.mixers.bi_attention import BiAttention


class DirectionMerge(nn.Module):
    """The sum of all directions; in a search, their mean by learned weights.

    While searching, every direction's result is brought to one scale (a LayerNorm without parameters) so that the
    softmax of `weights` says how much each counts. The weights learn together with all other parameters.

    Args:
        directions: K.
        search: learn weights.
        attn: channel attention applied to every direction first, where checkpoints keep it here.

    Shape:
        (B, K, T, E) to (B, T, E).
    """

    def __init__(self, directions: int, search: bool = False, attn: BiAttention | None = None) -> None:
        super().__init__()
        self.attn = attn
        self.weights = nn.Parameter(1e-3 * torch.randn(directions, 1, 1, 1)) if search else None

    def forward(self, y_BKTE: Tensor) -> Tensor:
        if self.attn is not None:
            y_BKTE = self.attn(y_BKTE)
        if self.weights is None:
            return y_BKTE.sum(1)
        normed_BKTE = F.layer_norm(y_BKTE, y_BKTE.shape[-1:])
        shares_K11 = self.weights.softmax(0).squeeze(1)
        return (normed_BKTE * shares_K11.to(normed_BKTE.dtype)).sum(1)


def searching_layers(model: nn.Module) -> list[nn.Module]:
    """The mixers of a supernet whose directions are weighed, in the network's order.

    Raises:
        ValueError: there is none.
    """
    merges = ((mixer, getattr(mixer, "multi_scan", None)) for mixer in model.modules())
    found = [mixer for mixer, merge in merges if isinstance(merge, DirectionMerge) and merge.weights is not None]
    if not found:
        raise ValueError("model: found no layer with direction weights, expected a backbone with search=True")
    return found


def direction_weights(model: nn.Module) -> Tensor:
    """How much each direction counts in each layer of a supernet: (layers, K), rows sum to 1.

    Raises:
        ValueError: no layer of the model is searching.
    """
    weights = [mixer.multi_scan.weights.detach() for mixer in searching_layers(model)]
    return torch.stack([one.flatten().float().softmax(0) for one in weights])


def strongest_directions(weights: Sequence[float], names: Sequence[str], keep: int = 4) -> tuple[str, ...]:
    """The `keep` directions of largest weight, in the candidates' order, as LocalMamba derives a layer.

    Args:
        weights: of one layer, a number a candidate; larger counts more.
        names: of the candidates.

    Raises:
        ValueError: not as many weights as names, or `keep` is not within 1 .. their number.
    """
    if len(weights) != len(names):
        raise ValueError(f"weights: found {len(weights)}, expected one for each of {len(names)} candidates")
    if not 1 <= keep <= len(names):
        raise ValueError(f"keep: found {keep}, expected a number of 1 .. {len(names)} candidates")
    ranked = sorted(range(len(names)), key=lambda k: float(weights[k]), reverse=True)
    return tuple(names[k] for k in sorted(ranked[:keep]))
