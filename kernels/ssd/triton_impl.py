"""ssd on a GPU, in Triton: forward and backward of the scan itself, over step sizes that are final."""

from functools import cache

import torch

from mamba_vision.kernels.ssd import triton_kernels as kernels
from mamba_vision.kernels.triton_common import NVIDIA, cdiv, power_of_two
from mamba_vision.kernels.triton_launcher import launch
from mamba_vision.kernels.triton_notice import announce_compilation

WIDEST = 128  # channels a head, and states: what one program holds


def serves(x: torch.Tensor, B: torch.Tensor) -> bool:
    """Whether the kernels take these: not float64, not wider than a program (or this GPU) holds, and not empty."""
    if x.dtype == torch.float64 or max(x.shape[3], B.shape[3]) > WIDEST or not (x.numel() and B.numel()):
        return False
    return 16 * max(16, power_of_two(x.shape[3])) * max(16, power_of_two(B.shape[3])) <= _shared_memory(x.device)


@cache
def _shared_memory(device: torch.device) -> int:
    """Bytes that a program may have; its products take up to 16 for each element of a state."""
    if device.type != "cuda":
        return 2**20
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", 2**16)


def forward(x, step, A, B, C, state, segment, chunk_size: int):
    """y (batch, length, heads, P) and the last state (batch, heads, P, N), float32; arguments as `ssd_reference`."""
    announce_compilation()
    batch, length, heads, P = x.shape
    shape = _shape(x, B, chunk_size, 64)
    y = torch.empty(batch, length, heads, P, device=x.device, dtype=torch.float32)
    with torch.cuda.device_of(x):
        entering, last = _states(x, step, A, B, state, segment, shape)
        launch(
            kernels.outputs, batch * heads * shape["chunks"],
            x, step, A, B, C, x if segment is None else segment, entering, y,
            length, shape["chunks"], heads, heads // B.shape[2], *x.stride(), *step.stride(), *B.stride(), *C.stride(),
            **shape["constants"], HAS_SEGMENT=segment is not None, num_warps=8, num_stages=1,
        )  # fmt: skip
    return y, last


def backward(grad, grad_last, x, step, A, B, C, state, segment, chunk_size: int):
    """Gradients of x, step, A, B, C (in their dtypes) and state."""
    batch, length, heads = x.shape[:3]
    groups, N = B.shape[2:]
    shape = _shape(x, B, chunk_size, 32)

    def empty(*size: int) -> torch.Tensor:
        return torch.empty(size, device=x.device, dtype=torch.float32)

    dx, dstep, dA = empty(*x.shape), empty(batch, length, heads), empty(batch, shape["chunks"], heads)
    dB, dC = empty(batch, length, heads, N), empty(batch, length, heads, N)
    segment_or = x if segment is None else segment
    flags = dict(HAS_SEGMENT=segment is not None, num_warps=8, num_stages=1)
    with torch.cuda.device_of(x):
        entering, _ = _states(x, step, A, B, state, segment, shape)
        leaving, dstate = _states(grad, step, A, C, grad_last, segment, shape, reverse=True)
        launch(
            kernels.gradients, batch * heads * shape["chunks"],
            grad, x, step, A, B, C, segment_or, entering, leaving, dx, dstep, dB, dC, dA,
            length, shape["chunks"], heads, heads // groups, *grad.stride(), *x.stride(), *step.stride(), *B.stride(),
            *C.stride(), **shape["constants"], **flags,
        )  # fmt: skip
        dB, dC = (t.unflatten(2, (groups, -1)).sum(3).to(like.dtype) for t, like in ((dB, B), (dC, C)))
    return dx.to(x.dtype), dstep, dA.sum((0, 1)), dB, dC, dstate


def _shape(x: torch.Tensor, B: torch.Tensor, chunk_size: int, most: int) -> dict:
    """Sizes of a program: at most `most` steps, so that it fits into registers."""
    P, N = x.shape[3], B.shape[3]
    PB, NB = (max(16, power_of_two(n)) for n in (P, N))
    # float32 without tensor cores: three tf32 passes at Q = 64 read beyond their shared memory on Hopper (Triton 3.6)
    exact = torch.float32 in (x.dtype, B.dtype) or not NVIDIA
    most = min(most, 32) if exact else most
    Q = min(max(16, power_of_two(chunk_size)), most if PB * NB <= 64 * 64 else most // 2)
    product = "ieee" if exact else "tf32"
    return dict(chunks=cdiv(x.shape[1], Q), constants=dict(P=P, N=N, PB=PB, NB=NB, Q=Q, PRODUCT=product))


def _states(x, step, A, B, first, segment, shape: dict, reverse: bool = False):
    """States that enter every chunk, (batch, chunk, heads, P, N), and what leaves the last; `reverse`: the gradients
    of those behind the chunks, from the gradient x of y, with C for B."""
    batch, length, heads, P = x.shape
    chunks, constants, size = shape["chunks"], shape["constants"], P * B.shape[3]
    states = torch.empty(batch, chunks, heads, P, B.shape[3], device=x.device, dtype=torch.float32)
    survives = torch.empty(batch, chunks, heads, device=x.device, dtype=torch.float32)
    last = torch.empty(batch, heads, P, B.shape[3], device=x.device, dtype=torch.float32)
    launch(
        kernels.added_states, batch * heads * chunks,
        x, step, A, B, x if segment is None else segment, states, survives,
        length, chunks, heads, heads // B.shape[2], *x.stride(), *step.stride(), *B.stride(),
        **constants, FROM_START=reverse, HAS_SEGMENT=segment is not None, num_warps=4, num_stages=1,
    )  # fmt: skip
    launch(
        kernels.pass_states, cdiv(size, 512) * heads * batch, states, survives, x if first is None else first, last,
        chunks, heads, size, REVERSED=reverse, HAS_FIRST=first is not None, BLOCK=512, num_warps=4,
    )  # fmt: skip
    return states, last
