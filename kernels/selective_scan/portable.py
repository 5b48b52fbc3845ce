"""The selective scan in plain PyTorch, fast on any device: chunks side by side, forward and backward written by hand.

A local pass from zero gives the state that each chunk of a group adds, a short loop over the chunks the true state
before each, and a second pass from there the outputs. Where batch x channels x state alone keeps the processor busy,
a group is one chunk and the local pass falls away. Only the states before the chunks are kept for backward, which goes
over the groups in reverse and rebuilds a group's decays and states: memory is bounded by the group, not by the length.
Decays are exponentials of sums of s A <= 0, never quotients: nothing overflows.

Layouts and cutting: chunks.py. R is every tensor's contiguous axis.
"""

import torch
import torch.nn.functional as F

from mamba_vision.kernels.selective_scan.chunks import Group, Layout, contract, cut


def saved_shape(u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> tuple[int, ...]:
    """The states before the chunks: (groups of chunks, K, batch, channels x state)."""
    size = cut(u.shape[0] * A.shape[0] * A.shape[1], u.shape[2])
    return (size.groups, size.chunks, u.shape[0], A.shape[0] * A.shape[1])


def forward(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep):
    """Outputs, last state, and the states before the chunks if `keep`; arguments as in kernels/README.md."""
    layout = Layout(u, A, B, C)
    out = torch.empty_like(u, dtype=out_dtype)
    state = A.new_zeros(layout.state_shape) if initial_state is None else layout.state(initial_state)
    saved = A.new_empty(saved_shape(u, A, B, C) if keep else 0)
    for index in range(layout.cut.groups):
        group = Group(layout, index, u, delta, A, B, C, delta_bias, delta_softplus)
        a = group.decays()
        before = _states_before(group, a, state)
        if keep:
            saved[index].copy_(before.flatten(2))
        h = _states(group, a, before, out=a)
        y = _outputs(group, h, D, layout)
        if z is not None:
            y.mul_(F.silu(layout.chunked(z, index)))
        layout.write(y, out, index)
        state = h[-1, -1].clone()
    return out, layout.state_back(state), saved


def _states_before(group: Group, a: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """The states before each chunk (K, b, G, N, R), given the one before the first (b, G, N, R)."""
    T, K = a.shape[:2]
    before = state.new_empty(K, *state.shape)
    before[0] = state
    if K > 1:
        h = torch.zeros_like(before)
        for t in range(T):
            h.mul_(a[t]).addcmul_(group.x[t].unsqueeze(-2), group.B_at(t))
        P = group.chunk_decays()
        for k in range(K - 1):
            torch.addcmul(h[k], P[k], before[k], out=before[k + 1])
    return before


def _states(group: Group, a: torch.Tensor, before: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The states after each step (T, K, b, G, N, R); `out` may be a."""
    h = before
    for t in range(len(a)):
        h = torch.mul(h, a[t], out=out[t]).addcmul_(group.x[t].unsqueeze(-2), group.B_at(t))
    return out


def _outputs(group: Group, h: torch.Tensor, D: torch.Tensor | None, layout: Layout) -> torch.Tensor:
    """C h + D u, (T, K, b, G, R)."""
    y = contract(group.C, h)
    return y if D is None else y.addcmul_(group.u, layout.rows(D))


def backward(grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus):
    """Gradients of all inputs; arguments as in kernels/README.md. x is s u, g the gradient of a state."""
    if saved.numel() == 0:
        saved = forward(u, delta, A, B, C, None, None, delta_bias, initial_state, delta_softplus, u.dtype, True)[2]
    layout = Layout(u, A, B, C)
    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dz = None if z is None else torch.empty_like(z)
    matrix = layout.matrix(A)
    dA = torch.zeros_like(matrix)
    dB, dC = (torch.zeros_like(matrix) if M.dim() == 2 else torch.empty_like(M) for M in (B, C))
    dD, dbias = (None if p is None else A.new_zeros(layout.G, layout.R) for p in (D, delta_bias))
    # the gradient that reaches the state behind the group from later steps
    later = A.new_zeros(layout.state_shape) if grad_last_state is None else layout.state(grad_last_state)

    for index in reversed(range(layout.cut.groups)):
        group = Group(layout, index, u, delta, A, B, C, delta_bias, delta_softplus)
        a, before = group.decays(), saved[index].view(-1, *layout.state_shape)
        h = _states(group, a, before, out=torch.empty_like(a))
        dy = layout.chunked(grad_out, index)
        if z is not None:
            gate = layout.chunked(z, index)
            sigma = torch.sigmoid(gate)
            slope = torch.addcmul(sigma, gate * sigma, 1 - sigma)
            layout.write(_outputs(group, h, D, layout).mul_(dy).mul_(slope), dz, index)
            dy.mul_(gate).mul_(sigma)
        g, e = _adjoint(group, a, dy, later)
        later = e[0, 0].clone()
        dx = contract(group.B, g)
        _add_matrix_gradient(dB, g.mul_(group.x.unsqueeze(-2)), layout, index)

        # e is a g; with the state before the step it makes the gradient of s A, of which q is the name
        q = e
        q[0].mul_(before)
        q[1:].mul_(h[:-1])
        _add_matrix_gradient(dC, h.mul_(dy.unsqueeze(-2)), layout, index)
        dA += torch.mul(q, group.s.unsqueeze(-2), out=h).sum((0, 1, 2))
        ds = q.mul_(matrix).sum(-2).addcmul_(dx, group.u)
        if delta_softplus:
            ds.mul_(group.p.sigmoid_())
        layout.write(ds, ddelta, index)
        if dbias is not None:
            dbias += layout.zero_tail(ds, index).sum((0, 1, 2))
        dx.mul_(group.s)
        if D is not None:
            dx.addcmul_(dy, layout.rows(D))
            dD += dy.mul_(group.u).sum((0, 1, 2))
        layout.write(dx, du, index)

    dB, dC = (layout.matrix_back(d).to(M.dtype) if M.dim() == 2 else d for d, M in ((dB, B), (dC, C)))
    dD, dbias = (None if d is None else d.flatten() for d in (dD, dbias))
    dstate = None if initial_state is None else layout.state_back(later)
    return du, ddelta, layout.matrix_back(dA), dB, dC, dD, dz, dbias, dstate


def _adjoint(group: Group, a: torch.Tensor, dy: torch.Tensor, later: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The reverse recurrence g_t = C_t dy_t + e_{t+1}, e_t = a_t g_t, with e behind the group given: (g, e).

    Both (T, K, b, G, N, R); e takes the place of a.
    """
    T, K = a.shape[:2]
    behind = torch.empty_like(a[0])
    behind[-1] = later
    if K > 1:
        local = torch.zeros_like(behind)
        for t in reversed(range(T)):
            local.addcmul_(dy[t].unsqueeze(-2), group.C_at(t)).mul_(a[t])
        P = group.chunk_decays()
        for k in reversed(range(1, K)):
            torch.addcmul(local[k], P[k], behind[k], out=behind[k - 1])
    g, e = torch.empty_like(a), behind
    for t in reversed(range(T)):
        torch.addcmul(e, dy[t].unsqueeze(-2), group.C_at(t), out=g[t])
        e = torch.mul(a[t], g[t], out=a[t])
    return g, a


def _add_matrix_gradient(gradient: torch.Tensor, terms: torch.Tensor, layout: Layout, index: int) -> None:
    """Sum terms (T, K, b, G, N, R) over what B or C is shared by: everything but the channels, or the channels."""
    if gradient.dim() == 3:
        gradient += terms.sum((0, 1, 2))
    else:
        layout.write(terms.sum(-1), gradient, index)
