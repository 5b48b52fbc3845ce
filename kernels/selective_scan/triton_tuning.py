"""Block shapes and splits by class of shape, as measured on an H200 (docs/performance.md): nobody waits for a tuner.

Every choice is correct for every shape; only speed depends on it. A choice of V > 1 is taken back where strides or
alignment do not allow it (triton_launch).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mamba_vision.kernels.triton_common import cdiv

MULTIPROCESSORS = 132
# One-warp programs that a multiprocessor holds at a register cap; a wave that is just full is the fastest.
RESIDENT = {128: 16, 160: 12, 168: 12, None: 8}


@dataclass(frozen=True)
class ForwardStates:
    """scan_states: channels and steps a tile, channels a thread, register cap, steps a chunk (None: not split).

    near: prefetch what the next tile reads, 0 not, 1 into L1, 2 into L2.
    """

    BC: int = 64
    T: int = 2
    V: int = 2
    registers: int | None = 168
    chunk: int | None = None
    near: int = 0


@dataclass(frozen=True)
class BackwardStates:
    """backward_states, and (local_...) adjoint_of_chunks before it."""

    BC: int = 32
    V: int = 1
    registers: int | None = 160
    unroll: int = 2
    reload: bool = False
    chunk: int | None = None
    near: int = 1
    local_bc: int = 32
    local_t: int = 4
    local_v: int = 1
    local_registers: int | None = 128
    local_near: int = 1


@dataclass(frozen=True)
class OneState:
    """scan_one_state, backward_one_state: W runs of T steps at once; `ahead`: next rows in registers."""

    BC: int = 64
    T: int = 8
    W: int = 1
    V: int = 2
    registers: int | None = None
    ahead: bool = True
    near: int = 1


_overrides: dict[object, dict] = {}


@contextmanager
def override(**choices: dict) -> Iterator[None]:
    """Fields to use instead of the tuned ones inside the block, for tests and benchmarks.

    `override(ForwardStates=dict(chunk=16), OneStateForward=dict(W=4))`; also BackwardStates and OneStateBackward.
    """
    keys = {"ForwardStates": ForwardStates, "BackwardStates": BackwardStates}
    keys |= {"OneStateForward": "forward", "OneStateBackward": "backward"}
    before = dict(_overrides)
    _overrides.update({keys[name]: fields for name, fields in choices.items()})
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


def forward_states(rows: int, channels: int, length: int, states: int) -> ForwardStates:
    """`rows` is batch x groups (or orders)."""
    wide, narrow = rows * cdiv(channels, 64), rows * cdiv(channels, 32)
    many = 8 * MULTIPROCESSORS
    if states > 16:
        choice = ForwardStates(BC=32, V=1, registers=None)
        choice = replace(choice, chunk=_chunk(narrow, length, None))
    elif wide >= many:
        choice = ForwardStates()
    elif narrow >= many or length < 512:
        choice = ForwardStates(BC=32, V=1, T=4, registers=128)
    elif channels >= 256:
        choice = ForwardStates(T=4, chunk=_chunk(wide, length, 168), near=1)
    else:
        choice = ForwardStates(BC=32, V=1, T=4, registers=128, chunk=_chunk(narrow, length, 128))
    return replace(choice, **_overrides.get(ForwardStates, {}))


def backward_states(rows: int, channels: int, length: int, states: int) -> BackwardStates:
    wide, narrow = rows * cdiv(channels, 64), rows * cdiv(channels, 32)
    if narrow >= 8 * MULTIPROCESSORS or length < 512:
        choice = BackwardStates()
    elif channels >= 256:
        choice = BackwardStates(BC=64, V=2, registers=None, chunk=_chunk(wide, length, None))
    else:
        choice = BackwardStates(registers=168, reload=True, chunk=_chunk(narrow, length, 168))
    return replace(choice, **_overrides.get(BackwardStates, {}))


def one_state(rows: int, channels: int, length: int, direction: str, keep: bool = True) -> OneState:
    """`direction` is forward or backward; `keep`: forward stores states for backward."""
    few = rows * cdiv(channels, 64) < 3 * MULTIPROCESSORS
    if few:
        W = 8
        while W > 1 and length < W * 8:
            W //= 2
        choice = OneState(BC=32, V=1, W=W, registers=None if direction == "forward" else 168)
    elif channels % 64:
        choice = OneState(BC=32, V=2, W=2, T=8 if keep else 4, registers=128 if keep else 96)
        if direction == "backward":
            choice = OneState(BC=32, V=1, W=2, registers=168)
    elif direction == "forward":
        choice = OneState(T=4) if length % 8 else OneState(registers=96)
    else:
        choice = OneState(near=int(length >= 512))
    return replace(choice, **_overrides.get(direction, {}))


def _chunk(programs: int, length: int, registers: int | None) -> int | None:
    """Steps a chunk so that all programs are one full wave and no more; None where a split does not pay."""
    chunks = MULTIPROCESSORS * RESIDENT[registers] // programs
    if chunks < 2:
        return None
    size = max(128, cdiv(cdiv(length, chunks), 16) * 16)
    return size if size < length else None
