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

from mamba_vision.kernels.selective_scan.chunks import KEPT_ELEMENTS, Block, Group, Layout, cut


def saved_shape(u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> tuple[int, ...]:
    """The states before the chunks: (groups, K, batch, channels x state)."""
    size = cut(u.shape[0] * A.shape[0], A.shape[1], u.shape[2])
    return (size.groups, size.chunks, u.shape[0], A.shape[0] * A.shape[1])


def forward(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep):
    """Outputs, last state, and the states before the chunks if `keep`; arguments as in kernels/README.md."""
    layout = Layout(u, A, B, C)
    out = torch.empty_like(u, dtype=out_dtype)
    state = A.new_zeros(layout.state_shape) if initial_state is None else layout.state(initial_state)
    # the states before the chunks, of all groups or of one
    saved = A.new_empty(saved_shape(u, A, B, C) if keep else (1, *saved_shape(u, A, B, C)[1:]))
    before = saved.view(len(saved), layout.cut.chunks, *layout.state_shape).unbind()
    a, h, _ = _room(layout, A)
    for first in layout.blocks:
        block = Block(layout, first, u, delta, A, B, C, delta_bias, delta_softplus, keep_p=False)
        y = block.x_chunks.squeeze(-2)  # a group's outputs take the place of its inputs
        for index in range(len(block)):
            group = block.group(index)
            group.decays(out=a.all)
            torch.mul(group.x, group.B, out=h.all)
            before_group = before[first + index if keep else 0]
            _states_before(group, a, h, state, out=before_group)
            _states(a, h, before_group)
            contract(group.C, h, out=y[index])
            state = h.last.clone()  # the next group is computed in the same room
        y = layout.from_chunks(y, block.room_of(out))
        if D is not None:
            y.addcmul_(block.u, D[:, None])
        if z is not None:
            y.mul_(F.silu(block.read(z)))
        block.write(y, out)
    return out, layout.state_back(state), saved if keep else A.new_empty(0)


def backward(grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus):
    """Gradients of all inputs; arguments as in kernels/README.md. x is s u, g the gradient of a state."""
    if saved.numel() == 0:
        saved = forward(u, delta, A, B, C, None, None, delta_bias, initial_state, delta_softplus, u.dtype, True)[2]
    layout = Layout(u, A, B, C)
    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dz = None if z is None else torch.empty_like(z)
    matrix = layout.matrix(A)
    dA = A.new_zeros(layout.state_shape[1:])
    dB, dC = (_MatrixGradient(M, layout) for M in (B, C))
    dD, dbias = (None if p is None else torch.zeros_like(p) for p in (D, delta_bias))
    # the gradient that reaches the state behind the group from later steps
    later = A.new_zeros(layout.state_shape) if grad_last_state is None else layout.state(grad_last_state)
    saved = saved.view(len(saved), layout.cut.chunks, *layout.state_shape).unbind()
    a, h, g = _room(layout, A)

    for first in reversed(layout.blocks):
        block = Block(layout, first, u, delta, A, B, C, delta_bias, delta_softplus, keep_p=True)
        dy = block.read(grad_out)
        if z is not None:
            behind_gate, gate = dy, block.read(z)
            sigma = torch.sigmoid(gate)
            dy = gate.mul(sigma).mul_(behind_gate)
        dy_chunks = layout.to_chunks(dy).unsqueeze(-2)
        dx, ds, y = torch.empty_like(dy_chunks.squeeze(-2).expand(3, *[-1] * 6)).unbind()
        dB.open(block.B)
        dC.open(block.C)
        for index in reversed(range(len(block))):
            group, before = block.group(index), saved[first + index]
            group.decays(out=a.all)
            torch.mul(group.x, group.B, out=h.all)
            _states(a, h, before)
            if z is not None:
                contract(group.C, h, out=y[index])
            torch.mul(dy_chunks[index], group.C, out=g.all)
            _adjoint(group, a, g, later)
            later = a.first * g.first
            contract(group.B, g, out=dx[index])
            dB.add(index, group.x, g)
            dC.add(index, dy_chunks[index], h)
            q = a.all.mul_(g.all)
            a.steps[0].mul_(before)
            a.but_first.mul_(h.but_last)  # q is the gradient of s A
            torch.sum(torch.mul(q, matrix, out=h.all), -2, out=ds[index])
            dA += q.mul_(group.s).sum((0, 1, 2))
        dB.close(first)
        dC.close(first)
        if z is not None:
            y = layout.from_chunks(y, block.room_of(dz))
            if D is not None:
                y.addcmul_(block.u, D[:, None])
            # silu' = sigma + z sigma (1 - sigma)
            slope = gate.mul_(sigma).addcmul_(gate, sigma, value=-1).add_(sigma)
            block.write(y.mul_(behind_gate).mul_(slope), dz)
        dx = layout.from_chunks(dx, block.room_of(du))
        ds = layout.from_chunks(ds, block.room_of(ddelta)).addcmul_(dx, block.u)
        if delta_softplus:
            ds.mul_(block.p.sigmoid_())
        block.write(ds, ddelta)
        if dbias is not None:
            dbias += ds.sum((0, 2))
        dx.mul_(block.s)
        if D is not None:
            dx.addcmul_(dy, D[:, None])
            dD += dy.mul_(block.u).sum((0, 2))
        block.write(dx, du)

    dstate = None if initial_state is None else layout.state_back(later)
    return du, ddelta, layout.matrix_back(dA), dB.result(), dC.result(), dD, dz, dbias, dstate


class _Steps:
    """Room for a tensor (K, T, b, G, N, R) of a group, and the views of it that the loops over time go through."""

    def __init__(self, room: torch.Tensor):
        self.all = room
        self.steps = room.unbind(1)  # of all chunks
        self.steps_but_last, self.steps_but_first = room[:-1].unbind(1), room[1:].unbind(1)  # of all chunks but one
        self.but_last, self.but_first = room[:, :-1], room[:, 1:]
        self.first, self.last = room[0, 0], room[-1, -1]
        self.rows = room.flatten(0, 3)  # (K T b G, N, R)
        self.columns = self.rows.transpose(1, 2)


_kept = threading.local()


def _room(layout: Layout, A: torch.Tensor) -> tuple[_Steps, _Steps, _Steps]:
    """Room for three tensors of a group: its decays, its states, and their gradients.

    On the CPU it is kept for the thread's next call of the same shape, if it is small: fresh memory comes page by page
    from the operating system, which takes longer than the scan itself.
    """
    shape = (3, layout.cut.chunks, layout.cut.steps, *layout.state_shape)
    if A.device.type != "cpu" or math.prod(shape) > KEPT_ELEMENTS:
        return tuple(_Steps(room) for room in A.new_empty(shape))
    if getattr(_kept, "key", None) != (shape, A.dtype):
        with torch.inference_mode(False):  # a tensor born in inference mode could not be written to outside it
            _kept.room = tuple(_Steps(room) for room in torch.empty(shape, dtype=A.dtype, device=A.device))
            _kept.key = (shape, A.dtype)
    return _kept.room


def _states_before(group: Group, a: _Steps, added: _Steps, state: torch.Tensor, out: torch.Tensor) -> None:
    """The states before each chunk (K, b, G, N, R), given the one before the first (b, G, N, R).

    added is what a step adds to the state.
    """
    out[0].copy_(state)
    if len(out) > 1:
        first, *later = added.steps_but_last
        h = first.clone()
        for added_t, a_t in zip(later, a.steps_but_last[1:]):
            torch.addcmul(added_t, a_t, h, out=h)
        rows = out.unbind(0)
        for h_k, P_k, row, following in zip(h.unbind(0), group.chunk_decays().unbind(0), rows, rows[1:]):
            torch.addcmul(h_k, P_k, row, out=following)


def _states(a: _Steps, added: _Steps, before: torch.Tensor) -> None:
    """Turn what a step adds into the state after it, in place, from the states before the chunks (K, b, G, N, R)."""
    h = before
    for a_t, added_t in zip(a.steps, added.steps):
        h = torch.addcmul(added_t, a_t, h, out=added_t)


def _adjoint(group: Group, a: _Steps, g: _Steps, later: torch.Tensor) -> None:
    """The reverse recurrence g_t = C_t dy_t + a_{t+1} g_{t+1}, in place: g comes in as C_t dy_t.

    later (b, G, N, R) stands for a g behind the last step.
    """
    K = len(g.all)
    g_next = g.steps[-1]
    if K > 1:
        behind = torch.empty_like(g_next)
        behind[-1] = later
        *earlier, last = g.steps_but_first
        e = last.clone()
        for g_t, a_next in zip(reversed(earlier), reversed(a.steps_but_first)):
            torch.addcmul(g_t, a_next, e, out=e)
        e.mul_(a.steps_but_first[0])
        rows = behind.unbind(0)
        for e_k, P_k, row, preceding in zip(
            e.unbind(0)[::-1], group.chunk_decays().unbind(0)[:0:-1], rows[:0:-1], rows[-2::-1]
        ):
            torch.addcmul(e_k, P_k, row, out=preceding)
        g_next.add_(behind)
    else:
        g_next.add_(later)
    for g_t, a_next in zip(g.steps[-2::-1], a.steps[:0:-1]):
        g_next = torch.addcmul(g_t, a_next, g_next, out=g_t)


def contract(M: torch.Tensor, h: _Steps, out: torch.Tensor) -> None:
    """out (K, T, b, G, R) = sum over the state of M h; M (K, T, b, G, N, 1) or (G, N, R), h (K, T, b, G, N, R)."""
    if h.all.shape[-2] == 1:
        torch.mul(M.squeeze(-2), h.all.squeeze(-2), out=out)
    elif M.dim() == 3:
        torch.sum(M * h.all, -2, out=out)
    else:
        torch.bmm(M.flatten(0, 3).transpose(1, 2), h.rows, out=out.flatten(0, 3).unsqueeze(-2))


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

    def add(self, index: int, row: torch.Tensor, state: _Steps) -> None:
        """Group `index` contributes row (K, T, b, G, 1, R) x state (K, T, b, G, N, R)."""
        if self.constant:
            self.total += (row * state.all).sum((0, 1, 2))
        else:
            torch.bmm(row.flatten(0, 3), state.columns, out=self.rows[index].flatten(0, 3).unsqueeze(-2))

    def close(self, first: int) -> None:
        """End the block."""
        if not self.constant:
            self.layout.from_chunks(self.rows, self.layout.steps(self.total, first))

    def result(self) -> torch.Tensor:
        return self.layout.matrix_back(self.total).to(self.matrix.dtype) if self.constant else self.total
