"""How the portable scan cuts a sequence, and its inputs in that layout.

A sequence is cut into groups, one after the other, and a group into K chunks of T steps that run side by side. What a
group needs per state fits a processor's cache; what is needed per channel is made ready for a block of several groups.

Layouts: K chunks of a group, T steps of a chunk, b batch, G groups of B and C, N state, R channels of such a group
(last and contiguous: every operation runs along it). Time is (groups, K, T), in order.
"""

from typing import NamedTuple

import torch

PARALLEL = 65536  # state elements a step that keep one processor busy
MAX_CHUNKS = 64  # the loop over the chunks of a group should stay short
MIN_STEPS = 16  # and a chunk worth its second pass
GROUP_ELEMENTS = 1 << 20  # elements (K, T, b, G, N, R) of a group, of which backward holds three tensors
BLOCK_ELEMENTS = 1 << 20  # elements (groups, K, T, b, G, R) of a block
KEPT_ELEMENTS = 1 << 23  # groups up to this size, all tensors together, are computed in memory that is kept
LOG2E = 1.4426950408889634


class Cut(NamedTuple):
    """groups x chunks x steps >= length; `block` groups at a time are made ready."""

    groups: int
    chunks: int
    steps: int
    block: int


def cut(rows: int, state: int, length: int) -> Cut:
    """Cut `length` steps of `rows` = batch x channels values with `state` states each."""
    rows = max(rows, 1)
    width = rows * state
    chunks = max(1, min(PARALLEL // width, MAX_CHUNKS, length // MIN_STEPS))
    steps = min(-(-length // chunks), max(MIN_STEPS, GROUP_ELEMENTS // (chunks * width)))
    groups = -(-length // (chunks * steps))
    steps = -(-length // (chunks * groups))  # the same number of groups, as even as can be
    return Cut(groups, chunks, steps, min(groups, max(1, BLOCK_ELEMENTS // (chunks * steps * rows))))


class Layout:
    """Moves tensors between the op's layout and that of the chunks."""

    def __init__(self, u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor):
        self.batch, channels, self.length = u.shape
        self.G = next((M.shape[1] for M in (B, C) if M.dim() == 4), 1)
        self.R, self.N, self.dtype = channels // self.G, A.shape[1], A.dtype
        self.cut = cut(self.batch * channels, self.N, self.length)
        self.blocks = range(0, self.cut.groups, self.cut.block)  # the first group of each
        self.state_shape = (self.batch, self.G, self.N, self.R)

    # ---- channels ---------------------------------------------------------------------------------
    def vector(self, parameter: torch.Tensor) -> torch.Tensor:
        """(channels,) as (G, R)."""
        return parameter.reshape(self.G, self.R)

    def matrix(self, M: torch.Tensor) -> torch.Tensor:
        """(channels, state) as (G, N, R)."""
        return M.to(self.dtype).reshape(self.G, self.R, self.N).transpose(1, 2).contiguous()

    def matrix_back(self, M: torch.Tensor) -> torch.Tensor:
        """(G, N, R) as (channels, state)."""
        return M.transpose(1, 2).reshape(self.G * self.R, self.N)

    def state(self, state: torch.Tensor) -> torch.Tensor:
        """(batch, channels, state) as (b, G, N, R)."""
        return state.reshape(self.batch, self.G, self.R, self.N).transpose(2, 3).contiguous()

    def state_back(self, state: torch.Tensor) -> torch.Tensor:
        """(b, G, N, R) as (batch, channels, state)."""
        return state.transpose(2, 3).reshape(self.batch, self.G * self.R, self.N).contiguous()

    # ---- time -------------------------------------------------------------------------------------
    def steps(self, sequence: torch.Tensor, first: int) -> torch.Tensor:
        """The steps of the block that begins with group `first`: a view, time last as it was."""
        group = self.cut.chunks * self.cut.steps
        return sequence[..., first * group : (first + self.cut.block) * group]

    def to_chunks(self, steps: torch.Tensor) -> torch.Tensor:
        """Steps of a block in the order of the chunks, zeros behind the end of the sequence.

        (batch, channels, steps) becomes (groups, K, T, b, G, R), and (batch, G, N, steps) (groups, K, T, b, G, N).
        """
        steps = self._time_first(steps)
        chunk = self.cut.chunks * self.cut.steps
        groups = -(-len(steps) // chunk)
        made = torch.empty((groups * chunk, *steps.shape[1:]), dtype=self.dtype, device=steps.device)
        made[: len(steps)].copy_(steps)
        if len(steps) < len(made):
            made[len(steps) :] = 0
        return made.unflatten(0, (groups, self.cut.chunks, self.cut.steps))

    def from_chunks(self, block: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_chunks`: writes into `steps`, and returns it."""
        target = self._time_first(steps)
        # without axes of size one, PyTorch sees where this is the transposition of a matrix
        target.squeeze().copy_(block.flatten(0, 2)[: len(target)].squeeze())
        return steps

    def _time_first(self, steps: torch.Tensor) -> torch.Tensor:
        """A view (steps, b, G, R or N)."""
        if steps.dim() == 3:
            steps = steps.unflatten(1, (self.G, self.R))
        return steps.movedim(-1, 0)


class Block:
    """The inputs of a block of groups, in float32 or float64.

    What is computed element by element lies as the op's inputs do: u, p (the step size before softplus), s (after it)
    and x = s u are (batch, channels, steps), laid out like u. In the order of the chunks come s and x, which `group`
    hands out, and B and C: (groups, K, T, b, G, N, 1), or (G, N, R) where they are constant.
    """

    def __init__(self, layout: Layout, first: int, u, delta, A, B, C, delta_bias, delta_softplus: bool, keep_p: bool):
        # 2^x is several times faster than e^x on CPUs
        self.A_log2e = layout.matrix(A) * LOG2E
        self.layout, self.first = layout, first
        self.u = layout.steps(u, first).to(layout.dtype)
        self.p = self.read(delta)
        if delta_bias is not None:
            self.p.add_(delta_bias[:, None])
        self.s = self.p
        if delta_softplus:
            self.s = torch.empty_like(self.p) if keep_p else self.p
            torch.ops.aten.softplus.out(self.p, 1, 20, out=self.s)
        self.x = self.s * self.u
        # a step of size zero, as behind the end, leaves the state as it is
        self.s_chunks, self.x_chunks = (layout.to_chunks(t).unsqueeze(-2) for t in (self.s, self.x))
        self.B, self.C = (
            layout.matrix(M) if M.dim() == 2 else layout.to_chunks(layout.steps(M, first)).unsqueeze(-1) for M in (B, C)
        )

    def __len__(self) -> int:
        return len(self.s_chunks)

    def read(self, sequence: torch.Tensor) -> torch.Tensor:
        """A copy of the block's part of a sequence (batch, channels, length), laid out like u."""
        return torch.empty_like(self.u).copy_(self.layout.steps(sequence, self.first))

    def room_of(self, result: torch.Tensor) -> torch.Tensor:
        """Where to compute the block's part of a result: in place, if its dtype and strides allow."""
        part = self.layout.steps(result, self.first)
        fits = part.dtype == self.layout.dtype and part.stride() == self.p.stride()
        return part if fits else torch.empty_like(self.u)

    def write(self, part: torch.Tensor, result: torch.Tensor) -> None:
        """Put what was computed in `room_of(result)` into it."""
        steps = self.layout.steps(result, self.first)
        if part.data_ptr() != steps.data_ptr():
            steps.copy_(part)

    def group(self, index: int) -> "Group":
        B, C = (M if M.dim() == 3 else M[index] for M in (self.B, self.C))
        return Group(self.A_log2e, self.s_chunks[index], self.x_chunks[index], B, C)


class Group(NamedTuple):
    """One group of a block: s, x (K, T, b, G, 1, R); B, C (K, T, b, G, N, 1) or (G, N, R)."""

    A_log2e: torch.Tensor
    s: torch.Tensor
    x: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor

    def decays(self, out: torch.Tensor) -> torch.Tensor:
        """exp(s A), (K, T, b, G, N, R)."""
        return torch.mul(self.s, self.A_log2e, out=out).exp2_()

    def chunk_decays(self) -> torch.Tensor:
        """The product of each chunk's decays, (K, b, G, N, R): the exponential of a sum, not positive for A <= 0."""
        return torch.mul(self.s.sum(1), self.A_log2e).exp2_()
