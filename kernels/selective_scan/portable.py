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
        h = _states_before(group, state)
        if keep:
            saved[index].copy_(h.flatten(2))
        y = torch.empty_like(group.s)
        a = torch.empty_like(h)
        for t in range(layout.cut.steps):
            h.mul_(group.decay(t, a)).addcmul_(group.x[t].unsqueeze(-2), group.B[t])
            contract(group.C[t], h, y[t])
        state = h[-1]
        if D is not None:
            y.addcmul_(group.u, layout.rows(D))
        if z is not None:
            y.mul_(F.silu(layout.chunked(z, index)))
        layout.write(y, out, index)
    return out, layout.state_back(state), saved


def _states_before(group: Group, state: torch.Tensor) -> torch.Tensor:
    """The states before each chunk (K, b, G, N, R), given the one before the first (b, G, N, R)."""
    T, K = group.s.shape[:2]
    before = state.new_empty(K, *state.shape)
    before[0] = state
    if K > 1:
        h = torch.zeros_like(before)
        a = torch.empty_like(h)
        for t in range(T):
            h.mul_(group.decay(t, a)).addcmul_(group.x[t].unsqueeze(-2), group.B[t])
        P = group.chunk_decay()
        for k in range(K - 1):
            torch.addcmul(h[k], P[k], before[k], out=before[k + 1])
    return before


def backward(grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus):
    """Gradients of all inputs; arguments as in kernels/README.md. x is s u, g the gradient of a state."""
    if saved.numel() == 0:
        saved = forward(u, delta, A, B, C, None, None, delta_bias, initial_state, delta_softplus, u.dtype, True)[2]
    layout = Layout(u, A, B, C)
    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dz = None if z is None else torch.empty_like(z)
    dA = A.new_zeros(layout.state_shape[1:])
    dB, dC = _MatrixGradient(B, layout), _MatrixGradient(C, layout)
    dD, dbias = (None if p is None else A.new_zeros(layout.G, layout.R) for p in (D, delta_bias))
    # what reaches the state behind the group from later steps
    later = A.new_zeros(layout.state_shape) if grad_last_state is None else layout.state(grad_last_state)

    for index in reversed(range(layout.cut.groups)):
        group = Group(layout, index, u, delta, A, B, C, delta_bias, delta_softplus)
        a, h = _rebuild(group, saved[index].view(-1, *layout.state_shape))
        dy = layout.chunked(grad_out, index)
        if z is not None:
            gate = layout.chunked(z, index)
            sigma = torch.sigmoid(gate)
            y = _outputs(group, h)
            if D is not None:
                y.addcmul_(group.u, layout.rows(D))
            layout.write(y.mul_(dy).mul_(sigma * (1 + gate * (1 - sigma))), dz, index)
            dy.mul_(gate).mul_(sigma)
        dx, ds, later = _adjoint(group, a, h, dy, later, dA, dB, dC)
        dB.close(index)
        dC.close(index)
        ds.addcmul_(dx, group.u)
        if delta_softplus:
            ds.mul_(torch.expm1(-group.s).neg_())  # softplus' = sigmoid(p) = 1 - exp(-softplus(p))
        layout.write(ds, ddelta, index)
        if dbias is not None:
            dbias += layout.zero_tail(ds, index).sum((0, 1, 2))
        dx.mul_(group.s)
        if D is not None:
            dx.addcmul_(dy, layout.rows(D))
            dD += dy.mul_(group.u).sum((0, 1, 2))
        layout.write(dx, du, index)

    dD, dbias = (None if p is None else p.flatten() for p in (dD, dbias))
    dstate = None if initial_state is None else layout.state_back(later)
    return du, ddelta, layout.matrix_back(dA), dB.result(), dC.result(), dD, dz, dbias, dstate


def _rebuild(group: Group, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Decays (T, K, b, G, N, R) and states (T + 1, K, b, G, N, R) of a group, from the states before its chunks."""
    T = group.s.shape[0]
    a, h = before.new_empty(T, *before.shape), before.new_empty(T + 1, *before.shape)
    h[0] = before
    for t in range(T):
        torch.mul(h[t], group.decay(t, a[t]), out=h[t + 1]).addcmul_(group.x[t].unsqueeze(-2), group.B[t])
    return a, h


def _outputs(group: Group, h: torch.Tensor) -> torch.Tensor:
    """C h, (T, K, b, G, R)."""
    y = torch.empty_like(group.s)
    for t in range(len(y)):
        contract(group.C[t], h[t + 1], y[t])
    return y


def _adjoint(
    group: Group,
    a: torch.Tensor,
    h: torch.Tensor,
    dy: torch.Tensor,
    later: torch.Tensor,
    dA: torch.Tensor,
    dB: "_MatrixGradient",
    dC: "_MatrixGradient",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The reverse recurrence over a group: g_t = C_t dy_t + e_t, e_{t-1} = a_t g_t.

    Returns the gradient of x, that of s through the decay alone (both (T, K, b, G, R)) and e before the group.
    """
    T, K = group.s.shape[:2]
    e = torch.zeros_like(h[0])
    e[-1] = later
    if K > 1:
        local = torch.zeros_like(e)
        for t in reversed(range(T)):
            local.addcmul_(dy[t].unsqueeze(-2), group.C[t]).mul_(a[t])
        P = group.chunk_decay()
        for k in reversed(range(1, K)):
            torch.addcmul(local[k], P[k], e[k], out=e[k - 1])
    dx, ds = torch.empty_like(dy), torch.empty_like(dy)
    product, dA_chunks = torch.empty_like(e), torch.zeros_like(e)
    for t in reversed(range(T)):
        e.addcmul_(dy[t].unsqueeze(-2), group.C[t])  # now g_t
        contract(group.B[t], e, dx[t])
        dB.add(t, group.x[t], e)
        dC.add(t, dy[t], h[t + 1])
        e.mul_(a[t])
        torch.mul(e, h[t], out=product)  # g_t a_t h_{t-1}: the gradient of s_t A
        dA_chunks.addcmul_(product, group.s[t].unsqueeze(-2))
        torch.sum(product.mul_(group.A), -2, out=ds[t])
    dA += dA_chunks.sum((0, 1))
    return dx, ds, e[0]


class _MatrixGradient:
    """The gradient of B or C, variable (batch, groups, state, length) or constant (channels, state)."""

    def __init__(self, matrix: torch.Tensor, layout: Layout):
        self.layout, self.constant = layout, matrix.dim() == 2
        self.dtype = matrix.dtype
        self.total = (
            None if not self.constant else torch.zeros(layout.state_shape[1:], dtype=layout.dtype, device=matrix.device)
        )
        self.sequence = None if self.constant else torch.empty_like(matrix)
        self.steps = None

    def add(self, t: int, row: torch.Tensor, state: torch.Tensor) -> None:
        """Step t contributes row (K, b, G, R) x state (K, b, G, N, R), summed over what the matrix is shared by."""
        if self.constant:
            self.total += (row.unsqueeze(-2) * state).sum((0, 1))
            return
        if self.steps is None:
            self.steps = state.new_empty(self.layout.cut.steps, *state.shape[:-1])
        torch.matmul(state, row.unsqueeze(-1), out=self.steps[t].unsqueeze(-1))

    def close(self, group: int) -> None:
        """The steps of a group are complete."""
        if not self.constant:
            self.layout.write(self.steps, self.sequence, group)

    def result(self) -> torch.Tensor:
        return self.layout.matrix_back(self.total).to(self.dtype) if self.constant else self.sequence
