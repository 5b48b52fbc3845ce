"""Every op's kernels compile for a GPU, which needs none: the interpreter takes code that the compiler refuses."""

import os
import subprocess
import sys

import pytest
import torch

from mamba_vision import kernels
from mamba_vision.kernels import backends

pytest.importorskip("triton")
HOPPER = 90
OPS = ("selective_scan", "ordered_scan", "causal_conv1d", "ssd", "instance_norm", "add_norm")


def leaf(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.rand(shape, dtype=dtype).requires_grad_()


def selective_scan(length: int, states: int) -> torch.Tensor:
    u, delta, z = (leaf(2, 64, length) for _ in range(3))
    B, C = (leaf(2, 1, states, length) for _ in range(2))
    A, D, bias = leaf(64, states, dtype=torch.float32), leaf(64, dtype=torch.float32), leaf(64, dtype=torch.float32)
    return kernels.selective_scan(u, delta, A, B, C, D, z if states > 1 else None, bias, delta_softplus=True)


def ordered_scan(states: int) -> torch.Tensor:
    tokens, K, C = 49, 2, 96
    order = torch.stack((torch.arange(tokens), torch.arange(tokens).flip(0))).int()
    x, dt, A = leaf(2, tokens, C), leaf(2, K, tokens, C), leaf(K, C, states, dtype=torch.float32)
    B, Cs = (leaf(2, K, tokens, states) for _ in range(2))
    D, bias = (leaf(K, C, dtype=torch.float32) for _ in range(2))
    return kernels.ordered_scan(x, order, dt, None, A, B, Cs, D, dt_bias=bias)


CALLS = {
    "scan": lambda: selective_scan(197, 16),
    "scan in chunks": lambda: selective_scan(4096, 16),
    "scan of one state": lambda: selective_scan(49, 1),
    "orders": lambda: ordered_scan(16),
    "orders of one state": lambda: ordered_scan(1),
    "convolution": lambda: kernels.causal_conv1d(leaf(2, 64, 49), leaf(64, 4), leaf(64), activation="silu"),
    "convolution, channels-last": lambda: kernels.causal_conv1d(leaf(2, 49, 64).transpose(1, 2), leaf(64, 4)),
    "sum and norm": lambda: kernels.add_norm(leaf(98, 96), leaf(98, 96, dtype=torch.float32), leaf(96), leaf(96))[0],
    "state-space duality": lambda: kernels.ssd(
        leaf(1, 128, 2, 32), leaf(1, 128, 2), -leaf(2, dtype=torch.float32), leaf(1, 128, 1, 32), leaf(1, 128, 1, 32)
    ),
    "instance norm": lambda: kernels.instance_norm(
        leaf(1, 48, 32, 32, 32), residual=leaf(1, 48, 32, 32, 32), slope=0.01
    ),
}


@pytest.mark.slow
def test_kernels_compile(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    shown = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=env, timeout=300, check=False
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    compiled = set(shown.stdout.split())
    assert compiled >= {"pack", "scan_states", "carry", "adjoint_of_chunks", "backward_states", "finish"}
    assert compiled >= {"scan_one_state", "backward_one_state", "merge_kernel", "rows_forward", "rows_backward"}
    assert compiled >= {"chunk_moments", "normalize", "differentiate", "forward_rows", "backward_rows", "sum_partials"}
    assert compiled >= {"added_states", "pass_states", "outputs", "gradients"}


def compile_all() -> None:
    """Runs forward and backward of CALLS with launches that compile, and prints the kernels' names."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Hopper:
        """As much of a driver as compiling asks for."""

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", HOPPER, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int | None = None) -> int:
            return 0

    def launch(kernel, programs: int, *arguments, **constants) -> None:
        if "OVERLAP" in kernel.arg_names:
            constants = constants | {"OVERLAP": True, "launch_pdl": True}
        kernel.run(*arguments, grid=(programs,), warmup=True, **{"enable_fp_fusion": True, **constants})
        print(kernel.fn.__name__, flush=True)

    driver.set_active(Hopper())
    backends.triton_obstacle = lambda *_, **__: None  # CPU tensors stand for the GPU's: only shapes and strides count
    for op in OPS:
        backends.load(op, "triton")
    for name, module in list(sys.modules.items()):
        if name.startswith("mamba_vision.kernels.") and hasattr(module, "launch"):
            module.launch = launch
    with kernels.use_backend("triton"):
        for call in CALLS.values():
            call().float().square().sum().backward()


if __name__ == "__main__":
    compile_all()
