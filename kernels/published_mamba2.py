"""Mamba-2's functions of mamba_ssm with their published names and argument orders, on this package's ops.

`compat.install` hands them out, as it does those in `published_ops`.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.kernels.add_norm import gated_norm
from mamba_vision.kernels.causal_conv1d import causal_conv1d
from mamba_vision.kernels.ssd import ssd

NO_LIMIT = (0.0, float("inf"))


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = NO_LIMIT,
    return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """`ssd`, then the final states and the states behind each packed sequence, where asked for.

    Args:
        cu_seqlens: (sequences + 1,) where the sequences of one row begin and the last one ends; read for
            `return_varlen_states` alone, as published: `seq_idx` says where the state is reset.
        others: as for `ssd`.

    Raises:
        ValueError: `return_varlen_states` without `cu_seqlens`, or with more than one row.
    """
    given = dict(dt_bias=dt_bias, dt_softplus=dt_softplus, dt_limit=tuple(dt_limit), chunk_size=chunk_size)
    out, states = ssd(
        x, dt, A, B, C, D, z, initial_states=initial_states, seq_idx=seq_idx, return_final_states=True, **given
    )
    results = [out, states] if return_final_states else [out]
    if return_varlen_states:
        if cu_seqlens is None or x.shape[0] != 1:
            raise ValueError(
                f"cu_seqlens: found {cu_seqlens} for x of shape {tuple(x.shape)}, expected the starts of the sequences "
                "packed into one row"
            )
        edges = cu_seqlens.tolist()
        # as published, each sequence starts from zero whatever initial_states says
        parts = (slice(first, last) for first, last in pairwise(edges))
        behind = (ssd(x[:, p], dt[:, p], A, B[:, p], C[:, p], return_final_states=True, **given)[1] for p in parts)
        results.append(torch.cat(list(behind)))
    return results[0] if len(results) == 1 else tuple(results)


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = NO_LIMIT,
    return_final_states: bool = False,
    activation: str | None = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """All of a Mamba-2 layer behind its input projection (arXiv 2405.21060, figure 6).

    Args:
        zxbcdt: (batch, length, 2 mlp + 2 inner + 2 groups * state + heads): the MLP's gate and input (where there is
            room for one), the scan's gate, its input with B and C, the step sizes.
        conv1d_weight, conv1d_bias: (inner + 2 groups * state, width) and the bias.
        dt_bias, A: (heads,); D: (heads,) or (heads, headdim), or (inner,) with `headdim`.
        activation: of the convolution.
        rmsnorm_weight: (inner,) of the gated norm, a group of channels at a time; None: the gate alone.
        outproj_weight, outproj_bias: (d_model, mlp + inner) and (d_model,); None: no projection.
        headdim: channels a head; read from a D of two axes where it is None.

    Returns:
        (batch, length, d_model), and with `return_final_states` the states.

    Raises:
        ValueError: `headdim` is missing, or sizes do not go together.
    """
    heads = len(A)
    if D.dim() == 1 and headdim is None:
        raise ValueError("headdim: found None, expected the channels a head, as D has one axis")
    headdim = D.shape[1] if D.dim() == 2 else headdim
    inner = heads * headdim
    bc = (conv1d_weight.shape[0] - inner) // 2
    mlp, odd = divmod(zxbcdt.shape[-1] - 2 * inner - 2 * bc - heads, 2)
    if mlp < 0 or odd or bc % ngroups:
        raise ValueError(
            f"zxbcdt has shape {tuple(zxbcdt.shape)}, which does not go with {heads} heads of {headdim} channels, "
            f"{ngroups} groups and conv1d_weight {tuple(conv1d_weight.shape)}"
        )
    z0, x0, z, xBC, dt = zxbcdt.split([mlp, mlp, inner, inner + 2 * bc, heads], dim=-1)
    xBC = causal_conv1d(xBC.transpose(1, 2), conv1d_weight, conv1d_bias, activation, seq_idx=seq_idx).transpose(1, 2)
    x, B, C = xBC.split([inner, bc, bc], dim=-1)
    y, states = ssd(
        x.unflatten(-1, (heads, headdim)), dt, A, B.unflatten(-1, (ngroups, -1)), C.unflatten(-1, (ngroups, -1)),
        D.view(heads, headdim) if D.numel() == inner else D,
        z=None if rmsnorm_weight is not None else z.unflatten(-1, (heads, headdim)),
        dt_bias=dt_bias, initial_states=initial_states, seq_idx=seq_idx, dt_softplus=True,
        dt_limit=tuple(dt_limit), return_final_states=True, chunk_size=chunk_size,
    )  # fmt: skip
    y = y.flatten(2)
    if rmsnorm_weight is not None:
        y = gated_norm(y, rmsnorm_weight, None, z, rmsnorm_eps, inner // ngroups, norm_before_gate)
    if mlp:
        y = torch.cat([F.silu(z0) * x0, y], dim=-1)
    if outproj_weight is not None:
        y = F.linear(y, outproj_weight, outproj_bias)
    return (y, states) if return_final_states else y


def layernorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> Tensor:
    """`gated_norm` of mamba_ssm.ops.triton.layernorm_gated."""
    return gated_norm(x, weight, bias, z, eps, group_size, norm_before_gate, "rms" if is_rms_norm else "layer")


def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """`layernorm_fn` with the root mean square."""
    return layernorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate, is_rms_norm=True)


class GatedLayerNorm(nn.Module):
    """`LayerNorm` of mamba_ssm.ops.triton.layernorm_gated: LayerNorm over groups of channels, with a gate."""

    kind = "layer"

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        bias = nn.Parameter(torch.zeros_like(self.weight)) if self.kind == "layer" else None
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """(..., hidden_size) like x, gated by z."""
        norm = (self.eps, self.group_size, self.norm_before_gate, self.kind)
        return gated_norm(x, self.weight, self.bias, z, *norm)


class GatedRMSNorm(GatedLayerNorm):
    """`RMSNorm` of the same module."""

    kind = "rms"
