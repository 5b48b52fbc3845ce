"""Block shapes and splits by class of shape, as measured on an H200 (docs/performance.md): nobody waits for a tuner.

Every choice is correct for every shape; only speed depends on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mamba_vision.kernels.triton_common import cdiv

# Programs of one warp that fill an H200 once at the register caps below (132 multiprocessors x 12 warps).
ONE_WAVE = 1584


@dataclass(frozen=True)
class ForwardStates:
    """scan_states: channels and steps a tile, channels a thread, register cap, steps a chunk (None: not split)."""

    BC: int = 64
    T: int = 4
    V: int = 2
    registers: int | None = None
    chunk: int | None = None
    near: int = 1


@dataclass(frozen=True)
class BackwardStates:
    """backward_states, and (local_...) adjoint_of_chunks before it."""

    BC: int = 32
    V: int = 1
    registers: int | None = 168
    unroll: int = 2
    reload: bool = True
    chunk: int | None = None
    near: int = 1
    local_near: int = 1
    local_BC: int = 64
    local_T: int = 4
    local_V: int = 2
    local_registers: int | None = None


@dataclass(frozen=True)
class OneState:
    """scan_one_state, backward_one_state: W warps of T steps."""

    BC: int = 32
    T: int = 8
    W: int = 4
    V: int = 1
    registers: int | None = None
    ahead: bool = True


_overrides: dict[type, dict] = {}


@contextmanager
def override(**choices: dict) -> Iterator[None]:
    """Fields to use instead of the tuned ones inside the block, for tests and benchmarks: override(ForwardStates={...})."""
    names = {cls.__name__: cls for cls in (ForwardStates, BackwardStates)} | {
        "OneStateForward": "forward",
        "OneStateBackward": "backward",
    }
    before = dict(_overrides)
    _overrides.update({names[name]: fields for name, fields in choices.items()})
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


def forward_states(rows: int, channels: int, length: int, states: int) -> ForwardStates:
    """`rows` is batch x groups (or orders)."""
    if states > 16 or channels <= 32:
        choice = ForwardStates(BC=32, V=1, registers=None if states > 16 else 128)
    else:
        choice = ForwardStates()
    choice = replace(choice, chunk=_chunk(rows * cdiv(channels, choice.BC), length))
    return replace(choice, **_overrides.get(ForwardStates, {}))


def backward_states(rows: int, channels: int, length: int, states: int) -> BackwardStates:
    choice = BackwardStates(local_BC=32, local_V=1) if states > 16 or channels <= 32 else BackwardStates()
    choice = replace(choice, chunk=_chunk(rows * cdiv(channels, choice.BC), length))
    return replace(choice, **_overrides.get(BackwardStates, {}))


def one_state(rows: int, channels: int, length: int, direction: str) -> OneState:
    W = 1
    while W < 8 and W * 2 * 8 < length + 8 and rows * cdiv(channels, 32) * W < 6000:
        W *= 2
    return replace(OneState(W=W), **_overrides.get(direction, {}))


def _chunk(programs: int, length: int) -> int | None:
    """Steps a chunk so that all programs are one full wave; None where the batch alone is enough."""
    if programs >= ONE_WAVE // 2 or length < 256:
        return None
    size = max(128, cdiv(length, max(1, ONE_WAVE // programs)))
    size = cdiv(size, 16) * 16
    return size if size < length else None
