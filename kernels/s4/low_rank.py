"""State matrices that are diagonal plus low rank: S4 (Gu, Goel and Ré, arXiv 2111.00396, appendix C).

The state matrix is diag(A) - P P*, with the conjugates of all states beside those that are stored: features h, states n
(half of them stored), channels c, rank r. The bilinear form is discretized; `output`, C̃, is C (1 - Ā^length), which
makes the kernel of that length the inverse transform of the generating function.
"""

import math

import torch


def low_rank_kernel(
    A: torch.Tensor, B: torch.Tensor, output: torch.Tensor, P: torch.Tensor, dt: torch.Tensor, length: int
) -> torch.Tensor:
    """K[c, h, l] = C Ā^l B̄ for l < length, (channels, features, length), real.

    Args:
        A: (features, states) complex.
        B: (1, features, states); output: (channels, features, states), C̃ of this length; P: (rank, features, states).
        dt: (features, 1).
    """
    # With w = exp(-2 pi i k / length) the resolvent's node is 2 (1 - w) / (1 + w), infinite at w = -1. Both are kept
    # multiplied by (1 + w) / 2, and computed in float64: at even lengths 1 + w would be all rounding error.
    angle = torch.arange(length // 2 + 1, device=A.device, dtype=torch.float64) * (-2 * math.pi / length)
    w = torch.polar(torch.ones_like(angle), angle)
    above, half = (1 - w).to(A.dtype), ((1 + w) / 2).to(A.dtype)
    scale = dt.unsqueeze(-1)
    resolvents = [scale / (above - scale * M.unsqueeze(-1) * half) for M in (A, A.conj())]

    left, right = torch.cat([B, P]), torch.cat([output, P.conj()])
    v = left.unsqueeze(1) * right.unsqueeze(0)  # (1 + rank, channels + rank, features, states)
    sums = sum(torch.einsum("ijhn,hnk->ijhk", M, R) for M, R in zip((v, v.conj()), resolvents))
    rank = len(P)
    bc, bq, pc, pq = sums[:-rank, :-rank], sums[:-rank, -rank:], sums[-rank:, :-rank], sums[-rank:, -rank:]
    inner = torch.eye(rank, dtype=A.dtype, device=A.device) + (pq * half).permute(2, 3, 0, 1)
    correction = torch.linalg.solve(inner, pc.permute(2, 3, 0, 1))  # (features, nodes, rank, channels)
    spectrum = bc[0] - torch.einsum("rhk,hkrc->chk", bq[0], correction) * half
    return torch.fft.irfft(spectrum, n=length)


def truncate_output(C: torch.Tensor, A: torch.Tensor, P: torch.Tensor, dt: torch.Tensor, length: int) -> torch.Tensor:
    """C̃ = C (1 - Ā^length) for a C (channels, features, states)."""
    return C - _through_power(C, A, P, dt, length)


def lengthen_output(
    output: torch.Tensor, A: torch.Tensor, P: torch.Tensor, dt: torch.Tensor, length: int
) -> torch.Tensor:
    """C̃ of twice `length` from that of `length`: C̃ (1 + Ā^length)."""
    return output + _through_power(output, A, P, dt, length)


def dense_system(
    A: torch.Tensor, B: torch.Tensor, output: torch.Tensor, P: torch.Tensor, dt: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ā (features, 2 states, 2 states), B̄ (features, 2 states) and C (channels, features, 2 states) over all states,
    for h_t = Ā h_{t-1} + B̄ u_t, y_t = Re(C h_t); `length` is that of C̃, 0 where `output` is C itself.
    """
    Ad, inverse = _discretize(A, P, dt)
    Bd = torch.einsum("hmn,hn->hm", inverse, _all_states(B)[0].to(inverse.dtype)) * dt
    C = _all_states(output).to(Ad.dtype)
    if length:
        kept = torch.eye(Ad.shape[-1], dtype=Ad.dtype, device=Ad.device) - torch.linalg.matrix_power(Ad, length)
        C = torch.linalg.solve(kept.mT, C.transpose(0, 1).mT).mT.transpose(0, 1)
    return Ad.to(A.dtype), Bd.to(A.dtype), C.to(A.dtype)


def _through_power(C, A, P, dt, length) -> torch.Tensor:
    """C Ā^length, stored states only."""
    power = torch.linalg.matrix_power(_discretize(A, P, dt)[0], length)
    return torch.einsum("chm,hmn->chn", _all_states(C).to(power.dtype), power)[..., : C.shape[-1]].to(C.dtype)


def _discretize(A, P, dt) -> tuple[torch.Tensor, torch.Tensor]:
    """Ā of the bilinear form and (1 - dt A / 2)^-1, in complex128: powers of Ā are taken."""
    diagonal, low = _all_states(A).to(torch.complex128), _all_states(P).to(torch.complex128)
    matrix = torch.diag_embed(diagonal) - torch.einsum("rhm,rhn->hmn", low, low.conj())
    half = dt.to(torch.float64).unsqueeze(-1) / 2 * matrix
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse = torch.linalg.inv(identity - half)
    return inverse @ (identity + half), inverse


def _all_states(M: torch.Tensor) -> torch.Tensor:
    return torch.cat([M, M.conj()], dim=-1)
