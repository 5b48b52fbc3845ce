"""Rates of stochastic depth over the blocks of a network (Huang et al. 2016, arXiv 1603.09382)."""


def drop_path_rates(highest: float, blocks: int) -> list[float]:
    """Rates that grow linearly from 0 at the first block to `highest` at the last.

    Raises:
        ValueError: `highest` is not of [0, 1).
    """
    if not 0 <= highest < 1:
        raise ValueError(f"drop_path_rate: found {highest}, expected at least 0 and less than 1")
    return [highest * block / max(blocks - 1, 1) for block in range(blocks)]
