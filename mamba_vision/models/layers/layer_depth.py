"""Where a backbone's parameters stand between input and output, for layer-wise decay of the learning rate."""

import re
from collections.abc import Callable, Sequence

_EMBEDDINGS = ("patch_embed.", "pos_embed", "cls_token")


def block_depth(param_name: str, prefix: str, blocks: int) -> tuple[int, int]:
    """(depth of a parameter, number of depths) of a plain backbone: embeddings 0, block i and its gate i + 1, the rest
    last, as is what is no part of the backbone.

    Args:
        param_name: such as 'backbone.layers.3.norm.weight' or 'backbone.gate_layers.3.weight'.
        prefix: of the backbone's parameters, such as 'backbone.'.
        blocks: how many there are.
    """
    return _depth(param_name, prefix, blocks, r"(?:gate_)?layers\.(\d+)\.", lambda found: int(found[1]))


def stage_depth(param_name: str, prefix: str, depths: Sequence[int]) -> tuple[int, int]:
    """`block_depth` for a backbone of stages, which are counted through: a downsampling has the depth of the block
    behind it.

    Args:
        param_name: such as 'backbone.layers.1.blocks.0.norm.weight' or 'backbone.layers.1.downsample.1.weight'.
        prefix: of the backbone's parameters, such as 'backbone.'.
        depths: blocks a stage.
    """

    def number(found: re.Match) -> int:
        stage, block = int(found[1]), found[2]
        return sum(depths[:stage]) + (depths[stage] if block is None else int(block))

    return _depth(param_name, prefix, sum(depths), r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.", number)


def _depth(
    param_name: str, prefix: str, blocks: int, pattern: str, number: Callable[[re.Match], int]
) -> tuple[int, int]:
    name = param_name.removeprefix(prefix)
    found = re.match(pattern, name)
    if not param_name.startswith(prefix):
        return blocks + 1, blocks + 2
    if name.startswith(_EMBEDDINGS):
        return 0, blocks + 2
    return (number(found) + 1 if found else blocks + 1), blocks + 2
