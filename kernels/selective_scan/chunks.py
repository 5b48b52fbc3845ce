"""How the portable scan cuts a sequence, and its inputs in that layout.

A sequence is cut into groups, one after the other, and a group into K chunks of T steps that run side by side.

Layouts: T steps of a chunk, K chunks of a group, b batch, G groups of B and C, N state, R channels of a group of B and
C (last and contiguous: every operation runs along it).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

PARALLEL = 65536  # state elements a step that keep one processor busy
GROUP_ELEMENTS = 8 << 20  # elements (T, K, b, G, N, R) that backward rebuilds at a time (two tensors of that size)
MAX_CHUNKS = 64  # the loop over the chunks of a group should stay short
MIN_STEPS = 8  # and a chunk worth its second pass


class Cut(NamedTuple):
    """groups x chunks x steps >= length."""

    groups: int
    chunks: int
    steps: int


def cut(width: int, length: int) -> Cut:
    """Cut `length` steps whose state has `width` = batch x channels x state elements."""
    width = max(width, 1)
    chunks = max(1, min(PARALLEL // width, MAX_CHUNKS, length // MIN_STEPS))
    steps = max(1, min(-(-length // chunks), GROUP_ELEMENTS // (chunks * width)))
    return Cut(-(-length // (chunks * steps)), chunks, steps)


class Layout:
    """Moves tensors between the op's layout and chunks."""

    def __init__(self, u: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor):
        self.batch, channels, self.length = u.shape
        self.G = next((M.shape[1] for M in (B, C) if M.dim() == 4), 1)
        self.R, self.N, self.dtype = channels // self.G, A.shape[1], A.dtype
        self.cut = cut(self.batch * channels * self.N, self.length)
        self.state_shape = (self.batch, self.G, self.N, self.R)

    # ---- channels ---------------------------------------------------------------------------------
    def rows(self, parameter: torch.Tensor) -> torch.Tensor:
        """(channels,) as (G, R)."""
        return parameter.view(self.G, self.R)

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
    def chunked(self, sequence: torch.Tensor, group: int) -> torch.Tensor:
        """(batch, channels, length) as (T, K, b, G, R), or (batch, G, N, length) as (T, K, b, G, N); zeros behind the end."""
        sequence = self._by_group(sequence)
        shape = (self.cut.steps, self.cut.chunks, *sequence.shape[:-1])
        made = torch.zeros(shape, dtype=self.dtype, device=sequence.device)
        for source, target in self._pairs(sequence, made, group):
            target.copy_(source)
        return made

    def write(self, chunked: torch.Tensor, sequence: torch.Tensor, group: int) -> None:
        """The inverse of `chunked`, into a tensor of the op's layout."""
        for target, source in self._pairs(self._by_group(sequence), chunked, group):
            target.copy_(source)

    def zero_tail(self, chunked: torch.Tensor, group: int) -> torch.Tensor:
        """Zero the steps behind the end of the sequence, in place."""
        _, whole, rest = self._span(group)
        if whole < self.cut.chunks:
            chunked[rest:, whole] = 0
            chunked[:, whole + 1 :] = 0
        return chunked

    def _by_group(self, sequence: torch.Tensor) -> torch.Tensor:
        return sequence.unflatten(1, (self.G, self.R)) if sequence.dim() == 3 else sequence

    def _span(self, group: int) -> tuple[int, int, int]:
        """First step of a group, how many of its chunks are whole, how many steps the next one has."""
        first = group * self.cut.chunks * self.cut.steps
        steps = min(self.length - first, self.cut.chunks * self.cut.steps)
        return first, steps // self.cut.steps, steps % self.cut.steps

    def _pairs(
        self, sequence: torch.Tensor, chunked: torch.Tensor, group: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Views of the same steps: of the sequence (b, G, *, length), and of its chunks (T, K, b, G, *)."""
        first, whole, rest = self._span(group)
        steps = self.cut.steps
        rows, chunks = sequence.movedim(-1, 1), chunked.movedim((0, 1), (2, 1))  # (b, length, ...), (b, K, T, ...)
        middle = first + whole * steps
        if whole:
            yield rows[:, first:middle].unflatten(1, (whole, steps)), chunks[:, :whole]
        if rest:
            yield rows[:, middle : middle + rest], chunks[:, whole, :rest]


class Group:
    """The inputs of one group of chunks, in float32 or float64.

    u, s (the step size after bias and softplus) and x = s u are (T, K, b, G, R); B and C are (T, K, b, G, N, 1), or
    (T, 1, 1, G, N, R) without a stride along T where they are constant.
    """

    def __init__(self, layout: Layout, index: int, u, delta, A, B, C, delta_bias, delta_softplus: bool):
        self.A = layout.matrix(A)
        self.u, s = layout.chunked(u, index), layout.chunked(delta, index)
        if delta_bias is not None:
            s.add_(layout.rows(delta_bias))
        if delta_softplus:
            s = F.softplus(s, threshold=20.0)
        self.s = layout.zero_tail(s, index)  # a step of size zero leaves the state as it is
        self.x = self.s * self.u
        self.B, self.C = (self._steps(layout, index, M) for M in (B, C))

    def decay(self, t: int, out: torch.Tensor) -> torch.Tensor:
        """exp(s_t A), (K, b, G, N, R)."""
        return torch.mul(self.s[t].unsqueeze(-2), self.A, out=out).exp_()

    def chunk_decay(self) -> torch.Tensor:
        """The product of a chunk's decays, (K, b, G, N, R): the exponential of a sum, which is never positive for A <= 0."""
        return (self.s.sum(0).unsqueeze(-2) * self.A).exp_()

    def _steps(self, layout: Layout, index: int, M: torch.Tensor) -> torch.Tensor:
        if M.dim() == 2:
            return layout.matrix(M).expand(layout.cut.steps, 1, 1, -1, -1, -1)
        return layout.chunked(M, index).unsqueeze(-1)


def contract(M: torch.Tensor, h: torch.Tensor, out: torch.Tensor) -> None:
    """out (K, b, G, R) = sum over the state of M h; M (K, b, G, N, 1) or (1, 1, G, N, R), h (K, b, G, N, R)."""
    if h.shape[-2] == 1:
        torch.mul(M.squeeze(-2), h.squeeze(-2), out=out)
    elif M.shape[-1] == 1:
        torch.matmul(M.transpose(-1, -2), h, out=out.unsqueeze(-2))
    else:
        torch.sum(M * h, -2, out=out)
