"""The scan of Mamba-2 as exported graphs hold it: a selective scan, which is one node and takes any length.

The block form would be cut into a number of chunks that the graph then fixes.
"""

import torch

from mamba_vision.kernels.selective_scan import selective_scan


def ssd_as_selective_scan(
    x: torch.Tensor, step: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """(batch, length, heads, P): every channel of a head is a channel with the head's step size and decay.

    Arguments as in `ssd`, steps after softplus; from a state of zero.
    """
    heads, P = x.shape[2:]
    u = x.flatten(2).transpose(1, 2)
    delta = step.unsqueeze(-1).expand(*step.shape, P).flatten(2).transpose(1, 2)
    rates = A[:, None, None].expand(heads, P, B.shape[3]).flatten(0, 1)
    B, C = (M.permute(0, 2, 3, 1) for M in (B, C))
    return selective_scan(u, delta, rates, B, C).transpose(1, 2).unflatten(2, (heads, P))
