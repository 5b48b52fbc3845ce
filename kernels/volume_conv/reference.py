"""The convolution by definition: 27 shifted products, any float dtype, differentiated by autograd."""

from itertools import product

import torch
import torch.nn.functional as F


def volume_conv_reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """out[d, h, w] = bias + Σ weight[i, j, k] x[d + i - 1, h + j - 1, w + k - 1], in float32 or float64."""
    work = torch.promote_types(x.dtype, torch.float32)
    padded, weight = F.pad(x.to(work), (1,) * 6), weight.to(work)
    out = x.new_zeros((), dtype=work) if bias is None else bias.to(work).view(-1, 1, 1, 1)
    for i, j, k in product(range(3), repeat=3):
        shifted = padded[:, :, i : i + x.shape[2], j : j + x.shape[3], k : k + x.shape[4]]
        out = out + torch.einsum("oc,bcdhw->bodhw", weight[:, :, i, j, k], shifted)
    return out.to(x.dtype)
