"""The selective scan in plain PyTorch, fast on any device: chunks side by side, forward and backward written by hand.

A local pass from zero gives the state that each chunk of a group adds, a short loop over the chunks the true state
before each, and a second pass from there all states, of which the outputs are one matrix product. Where batch x
channels x state alone keeps the processor busy, a group is one chunk and the local pass falls away. Only the states
before the chunks are kept for backward, which goes over the groups in reverse and rebuilds a group's decays and
states: memory is bounded by the group, not by the length. Decays are exponentials of sums of s A <= 0, never
quotients: nothing overflows.

Cutting and layouts: chunks.py.
"""

import math
import threading

import torch
import torch.nn.functional as F

from mamba_vision.kernels.selective_scan.chunks import KEPT_ELEMENTS, Block, Group, Layout, contract, cut


def saved_shape(u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> tuple[int, ...]:
    """The states before the chunks: (groups, K, batch, channels x state)."""
    size = cut(u.shape[0] * A.shape[0], A.shape[1], u.shape[2])
    return (size.groups, size.chunks, u.shape[0], A.shape[0] * A.shape[1])


def forward(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep):
    """Outputs, last state, and the states before the chunks if `keep`; arguments as in kernels/README.md."""
    layout = Layout(u, A, B, C)
    out = torch.empty_like(u, dtype=out_dtype)
    state = A.new_zeros(layout.state_shape) if initial_state is None else layout.state(initial_state)
    saved = A.new_empty(saved_shape(u, A, B, C) if keep else 0)
    a, h = _buffers(2, layout, A)
    for first in layout.blocks:
        block = Block(layout, first, u, delta, A, B, C, delta_bias, delta_softplus)
        y = block.x  # a group's outputs take the place of its inputs
        for index in range(len(block)):
            group = block.group(index)
            group.decays(out=a)
            torch.mul(group.x.unsqueeze(-2), group.B, out=h)
            before = _states_before(group, a, h, state)
            if keep:
                saved[first + index].copy_(before.flatten(2))
            _states(a, h, before)
            contract(group.C, h, out=y[index])
            state = h[-1, -1].clone()
        if D is not None:
            y.addcmul_(block.u, layout.vector(D))
        if z is not None:
            y.mul_(F.silu(layout.read(z, first)))
        layout.write(y, out, first)
    return out, layout.state_back(state), saved


def backward(grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus):
    """Gradients of all inputs; arguments as in kernels/README.md. x is s u, g the gradient of a state."""
    if saved.numel() == 0:
        saved = forward(u, delta, A, B, C, None, None, delta_bias, initial_state, delta_softplus, u.dtype, True)[2]
    layout = Layout(u, A, B, C)
    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dz = None if z is None else torch.empty_like(z)
    matrix = layout.matrix(A)
    dA = A.new_zeros(layout.cut.chunks, *layout.state_shape)
    dB, dC = (_MatrixGradient(M, layout) for M in (B, C))
    dD, dbias = (None if p is None else A.new_zeros(layout.G, layout.R) for p in (D, delta_bias))
    # the gradient that reaches the state behind the group from later steps
    later = A.new_zeros(layout.state_shape) if grad_last_state is None else layout.state(grad_last_state)
    a, h, g = _buffers(3, layout, A)

    for first in reversed(layout.blocks):
        block = Block(layout, first, u, delta, A, B, C, delta_bias, delta_softplus)
        dy = layout.read(grad_out, first)
        if z is not None:
            # dy is the gradient behind the gate until y is rebuilt
            behind_gate, gate, y = dy, layout.read(z, first), torch.empty_like(dy)
            sigma = torch.sigmoid(gate)
            dy = dy * gate * sigma
        dx, ds = torch.empty_like(dy), torch.empty_like(dy)
        dB.open(block.B)
        dC.open(block.C)
        for index in reversed(range(len(block))):
            group, before = block.group(index), saved[first + index].view(layout.cut.chunks, *layout.state_shape)
            group.decays(out=a)
            torch.mul(group.x.unsqueeze(-2), group.B, out=h)
            _states(a, h, before)
            if z is not None:
                contract(group.C, h, out=y[index])
            torch.mul(dy[index].unsqueeze(-2), group.C, out=g)
            _adjoint(group, a, g, later)
            later = a[0, 0] * g[0, 0]
            contract(group.B, g, out=dx[index])
            dB.add(index, group.x, g)
            dC.add(index, dy[index], h)
            q = a.mul_(g)
            q[:, 0].mul_(before)
            q[:, 1:].mul_(h[:, :-1])  # the gradient of s A
            for q_t, s_t in zip(q.unbind(1), group.s.unsqueeze(-2).unbind(1)):
                dA.addcmul_(q_t, s_t)
            torch.sum(q.mul_(matrix), -2, out=ds[index])
        dB.close(first)
        dC.close(first)
        if z is not None:
            if D is not None:
                y.addcmul_(block.u, layout.vector(D))
            slope = torch.addcmul(sigma, gate.mul_(sigma), 1 - sigma)
            layout.write(y.mul_(behind_gate).mul_(slope), dz, first)
        ds.addcmul_(dx, block.u)
        if delta_softplus:
            ds.mul_(block.p.sigmoid_())
        layout.write(ds, ddelta, first)
        if dbias is not None:
            dbias += layout.zero_tail(ds, first).sum((0, 1, 2, 3))
        dx.mul_(block.s)
        if D is not None:
            dx.addcmul_(dy, layout.vector(D))
            dD += dy.mul_(block.u).sum((0, 1, 2, 3))
        layout.write(dx, du, first)

    dD, dbias = (None if d is None else d.flatten() for d in (dD, dbias))
    dstate = None if initial_state is None else layout.state_back(later)
    return du, ddelta, layout.matrix_back(dA.sum((0, 1))), dB.result(), dC.result(), dD, dz, dbias, dstate


_kept = threading.local()


def _buffers(count: int, layout: Layout, A: torch.Tensor) -> torch.Tensor:
    """Room for `count` tensors (K, T, b, G, N, R) of a group.

    On the CPU it is kept for the thread's next call, if it is small: fresh memory comes page by page from the
    operating system, which takes longer than the scan itself.
    """
    shape = (count, layout.cut.chunks, layout.cut.steps, *layout.state_shape)
    size = math.prod(shape)
    if A.device.type != "cpu" or size > KEPT_ELEMENTS:
        return A.new_empty(shape)
    kept = getattr(_kept, "buffer", None)
    if kept is None or kept.dtype != A.dtype or kept.numel() < size:
        with torch.inference_mode(False):  # a tensor born in inference mode could not be written to outside it
            kept = _kept.buffer = torch.empty(size, dtype=A.dtype)
    return kept[:size].view(shape)


def _states_before(group: Group, a: torch.Tensor, added: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """The states before each chunk (K, b, G, N, R), given the one before the first (b, G, N, R).

    a and added, what a step adds to the state, are (K, T, b, G, N, R).
    """
    K = a.shape[0]
    before = state.new_empty(K, *state.shape)
    before[0] = state
    if K > 1:
        first, *later = added[:-1].unbind(1)
        h = first.clone()
        for added_t, a_t in zip(later, a[:-1].unbind(1)[1:]):
            torch.addcmul(added_t, a_t, h, out=h)
        rows = before.unbind(0)
        for h_k, P_k, row, following in zip(h.unbind(0), group.chunk_decays().unbind(0), rows, rows[1:]):
            torch.addcmul(h_k, P_k, row, out=following)
    return before


def _states(a: torch.Tensor, added: torch.Tensor, before: torch.Tensor) -> None:
    """Turn what a step adds into the state after it, in place, from the states before the chunks."""
    h = before
    for a_t, added_t in zip(a.unbind(1), added.unbind(1)):
        h = torch.addcmul(added_t, a_t, h, out=added_t)


def _adjoint(group: Group, a: torch.Tensor, g: torch.Tensor, later: torch.Tensor) -> None:
    """The reverse recurrence g_t = C_t dy_t + a_{t+1} g_{t+1}, in place: g comes in as C_t dy_t.

    a, g (K, T, b, G, N, R); later (b, G, N, R) stands for a g behind the last step.
    """
    K = a.shape[0]
    behind = torch.empty_like(g[:, 0])
    behind[-1] = later
    if K > 1:
        e = g[1:, -1].clone()
        for g_t, a_next in zip(g[1:].unbind(1)[-2::-1], a[1:].unbind(1)[:0:-1]):
            torch.addcmul(g_t, a_next, e, out=e)
        e.mul_(a[1:, 0])
        rows = behind.unbind(0)
        for e_k, P_k, row, preceding in zip(
            e.unbind(0)[::-1], group.chunk_decays().unbind(0)[:0:-1], rows[:0:-1], rows[-2::-1]
        ):
            torch.addcmul(e_k, P_k, row, out=preceding)
    g_next = g[:, -1].add_(behind)
    for g_t, a_next in zip(g.unbind(1)[-2::-1], a.unbind(1)[:0:-1]):
        g_next = torch.addcmul(g_t, a_next, g_next, out=g_t)


class _MatrixGradient:
    """The gradient of B or C: a sum over channels where it is variable, over batch and time where it is constant."""

    def __init__(self, matrix: torch.Tensor, layout: Layout):
        self.layout, self.matrix = layout, matrix
        self.constant = matrix.dim() == 2
        self.total = torch.zeros_like(layout.matrix(matrix)) if self.constant else torch.empty_like(matrix)
        self.rows = None

    def open(self, block_matrix: torch.Tensor) -> None:
        """Begin a block."""
        if not self.constant:
            self.rows = torch.empty_like(block_matrix.squeeze(-1))

    def add(self, index: int, row: torch.Tensor, state: torch.Tensor) -> None:
        """Group `index` contributes row (K, T, b, G, R) x state (K, T, b, G, N, R)."""
        if self.constant:
            self.total += (row.unsqueeze(-2) * state).sum((0, 1, 2))
        else:
            torch.matmul(row.unsqueeze(-2), state.transpose(-1, -2), out=self.rows[index].unsqueeze(-2))

    def close(self, first: int) -> None:
        """End the block."""
        if not self.constant:
            self.layout.write(self.rows, self.total, first)

    def result(self) -> torch.Tensor:
        return self.layout.matrix_back(self.total).to(self.matrix.dtype) if self.constant else self.total
