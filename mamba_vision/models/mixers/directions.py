"""Several directions over the same tokens, each with its own branch of parameters and its own order.

Legend: B batch, L tokens (and steps of an order), E inner width, K directions, R step rank, N states, W conv width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels import ordered_conv1d
from mamba_vision.models.layers.recompute import recomputed
from mamba_vision.models.layers.tall_products import half_dtype, tall_product
from mamba_vision.models.mixers.branch import branch_rates
from mamba_vision.models.mixers.scan_inputs import ScanInputs


def stacked(mixer: nn.Module, name: str, suffixes: Sequence[str]) -> Tensor | None:
    """The parameter `name` ('dt_proj.weight') of all branches, (K, ...); None where the branches have none."""
    module, _, leaf = name.partition(".")
    parts = [getattr(getattr(mixer, module + suffix), leaf) for suffix in suffixes]
    return None if parts[0] is None else torch.stack(parts)


def directional_scan(mixer: nn.Module, suffixes: Sequence[str], x_BLE: Tensor, order_KL: Tensor) -> dict[str, Any]:
    """The arguments with which `ordered_scan` runs the branches `suffixes` of a mixer (see `branch`) along K orders.

    Step sizes, B and C are projected from each direction's own convolution, in its order; the scan convolves again by
    itself, so that no convolved copy has to be kept for it.
    """
    conv = (stacked(mixer, "conv1d.weight", suffixes).squeeze(2), stacked(mixer, "conv1d.bias", suffixes))
    projected = recomputed(_projected, x_BLE, order_KL, *conv, stacked(mixer, "x_proj.weight", suffixes))
    sizes = [mixer.dt_rank, mixer.d_state, mixer.d_state]
    more = projected.shape[-1] - sum(sizes)
    dt_BKLR, B_BKLN, C_BKLN = projected.split(sizes + [more] * (more > 0), dim=-1)[:3]
    return dict(
        x=x_BLE,
        order=order_KL,
        dt=dt_BKLR,
        dt_weight=stacked(mixer, "dt_proj.weight", suffixes),
        A=torch.stack([branch_rates(mixer, suffix) for suffix in suffixes]),
        B=B_BKLN,
        C=C_BKLN,
        D=torch.stack([getattr(mixer, f"D{suffix}") for suffix in suffixes]),
        dt_bias=stacked(mixer, "dt_proj.bias", suffixes),
        conv=conv,
    )


def _projected(x_BLE: Tensor, order_KL: Tensor, weight: Tensor, bias: Tensor | None, weight_KPE: Tensor) -> Tensor:
    """Each direction's convolution, projected to step sizes, B and C: (B, K, L, P), or wider with zeros behind them."""
    u_KBLE = ordered_conv1d(x_BLE, order_KL, weight, bias).transpose(0, 1)
    # one product a direction over all of the batch: directions come first in memory
    rows_KME, dtype = u_KBLE.flatten(1, 2), half_dtype(u_KBLE)
    if dtype is None:
        projected = torch.bmm(rows_KME, weight_KPE.transpose(1, 2))
    else:
        projected = tall_product(rows_KME.to(dtype), weight_KPE.to(dtype))
    return projected.unflatten(1, u_KBLE.shape[1:3]).transpose(0, 1)


def directional_inputs(
    mixer: nn.Module, suffixes: Sequence[str], x_BLE: Tensor, z_BLE: Tensor, order_KL: Tensor
) -> ScanInputs:
    """What `directional_scan` scans, written out: every sequence in the order in which its direction reads it."""
    given = directional_scan(mixer, suffixes, x_BLE, order_KL)
    u_BKLE = ordered_conv1d(x_BLE, order_KL, *given["conv"])
    delta_BKLE = given["dt"] @ given["dt_weight"].transpose(1, 2)
    wide = torch.promote_types(delta_BKLE.dtype, torch.float32)
    delta_BKLE = F.softplus(delta_BKLE.to(wide) + given["dt_bias"][:, None].to(wide))
    z_BLE = F.pad(z_BLE, (0, 0, 0, 1))  # a last row, which -1 finds: the zero token
    per_step = (u_BKLE, delta_BKLE, given["B"], given["C"], z_BLE[:, order_KL])
    u, delta, B, C, z = (t.transpose(2, 3) for t in per_step)
    return ScanInputs(u, delta, given["A"], B, C, given["D"], z, order_KL)
