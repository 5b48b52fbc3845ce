"""The Mamba-2 recurrence in its block form: matrix products inside chunks, a short loop over the chunks."""

import torch
import torch.nn.functional as F


def ssd_chunked(
    x: torch.Tensor,
    step: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    state: torch.Tensor,
    segment: torch.Tensor | None,
    chunk_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `ssd_reference`; arXiv 2405.21060, section 6: the four blocks of the decomposition.

    Layouts inside: b batch, k chunk, t and r steps of a chunk, g group, h head of a group, p P, n N.
    """
    batch, length, heads, P = x.shape
    groups, N = B.shape[2:]
    Q = min(chunk_size, length)
    pad = -length % Q
    if pad:
        # a step of size zero leaves the state as it is
        x, step, B, C = (F.pad(M, (0, 0) * (M.dim() - 2) + (0, pad)) for M in (x, step, B, C))
        if segment is not None:
            segment = torch.cat([segment, segment[:, -1:].expand(-1, pad)], dim=1)
    chunks = (length + pad) // Q
    shape = (batch, chunks, Q, groups, heads // groups)
    x, step = x.reshape(*shape, P), step.reshape(shape)
    B, C = (M.reshape(batch, chunks, Q, groups, N) for M in (B, C))
    state = state.reshape(batch, groups, heads // groups, P, N)
    log_decay = step * A.reshape(groups, -1)
    xs = x * step.unsqueeze(-1)

    # inside a chunk: from r to t >= r
    allowed = torch.ones(Q, Q, dtype=torch.bool, device=x.device).tril()
    if segment is not None:
        segment = segment.reshape(batch, chunks, Q)
        same = segment.unsqueeze(3) == segment.unsqueeze(2)
        allowed = (allowed & same)[..., None, None]
    else:
        allowed = allowed[..., None, None]
    # The difference of two sums from the chunk's start: where steps are large, little would be left of it in float32.
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    decay = torch.cumsum(log_decay.to(wide), dim=2)  # from before the chunk to behind t
    whole = (decay.unsqueeze(3) - decay.unsqueeze(2)).to(x.dtype)
    # forbidden pairs become exp(-inf), not inf * 0
    between = whole.masked_fill(~allowed, -torch.inf).exp()
    scores = torch.einsum("bktgn,bkrgn->bktrg", C, B)
    y = torch.einsum("bktrg,bktrgh,bkrghp->bktghp", scores, between, xs)

    # what a chunk adds to the state behind it, and how much of the state before it survives
    from_start = decay.to(x.dtype).exp()
    to_end, survives = whole[:, :, -1].exp(), from_start[:, :, -1]
    if segment is not None:
        last = segment[:, :, -1]
        before = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1)
        to_end = to_end * (segment == last[..., None])[..., None, None]
        from_start = from_start * (segment == before[..., None])[..., None, None]
        survives = survives * (last == before)[..., None, None]
    added = torch.einsum("bkrgh,bkrghp,bkrgn->bkghpn", to_end, xs, B)
    states = []
    for k in range(chunks):
        states.append(state)
        state = survives[:, k, :, :, None, None] * state + added[:, k]
    y = y + torch.einsum("bktgn,bkghpn,bktgh->bktghp", C, torch.stack(states, dim=1), from_start)
    return y.reshape(batch, chunks * Q, heads, P)[:, :length], state.reshape(batch, heads, P, N)
