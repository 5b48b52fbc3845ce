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
LOG2E = 1.4426950408889634


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
        """(batch, channels, length) as (T, K, b, G, R), (batch, G, N, length) as (T, K, b, G, N); zeros at the end."""
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

    u, p (the step size before softplus), s (after it) and x = s u are (T, K, b, G, R); B and C are (T, K, b, G, N, 1),
    or (G, N, R) where they are constant.
    """

    def __init__(self, layout: Layout, index: int, u, delta, A, B, C, delta_bias, delta_softplus: bool):
        # 2^x is several times faster than e^x on CPUs
        self.A_log2e = layout.matrix(A) * LOG2E
        self.u, self.p = layout.chunked(u, index), layout.chunked(delta, index)
        if delta_bias is not None:
            self.p.add_(layout.rows(delta_bias))
        s = F.softplus(self.p, threshold=20.0) if delta_softplus else self.p
        self.s = layout.zero_tail(s, index)  # a step of size zero leaves the state as it is
        self.x = self.s * self.u
        self.B, self.C = (layout.matrix(M) if M.dim() == 2 else layout.chunked(M, index).unsqueeze(-1) for M in (B, C))

    def B_at(self, t: int) -> torch.Tensor:  # noqa: N802
        """B of step t, to multiply with (K, b, G, N, R)."""
        return self.B if self.B.dim() == 3 else self.B[t]

    def C_at(self, t: int) -> torch.Tensor:  # noqa: N802
        """C of step t, likewise."""
        return self.C if self.C.dim() == 3 else self.C[t]

    def decays(self) -> torch.Tensor:
        """exp(s A), (T, K, b, G, N, R)."""
        return torch.mul(self.s.unsqueeze(-2), self.A_log2e).exp2_()

    def chunk_decays(self) -> torch.Tensor:
        """The product of each chunk's decays, (K, b, G, N, R): the exponential of a sum, not positive for A <= 0."""
        return torch.mul(self.s.sum(0).unsqueeze(-2), self.A_log2e).exp2_()


def contract(M: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Sum over the state of M h, (T, K, b, G, R); M (T, K, b, G, N, 1) or (G, N, R), h (T, K, b, G, N, R)."""
    if h.shape[-2] == 1:
        return (M * h).squeeze(-2)
    if M.dim() == 3:
        return (M * h).sum(-2)
    return torch.matmul(M.transpose(-1, -2), h).squeeze(-2)
