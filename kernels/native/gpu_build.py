"""Triton kernels of gpu_kernels.py as PTX, NVIDIA's portable assembly: compiled without a GPU, run on any since Ampere.

The driver turns PTX into a GPU's own code when a model first needs a kernel, and remembers it.
"""

import os
import re
from collections.abc import Iterator

POINTERS = {
    "pack": ("A", "B", "C", "At", "rows", "order"),
    "scan": ("u", "delta", "z", "y", "D", "bias", "rows", "At", "ends", "decays", "entering", "order"),
    "carry": ("ends", "decays", "At", "entering"),
    "token_numbers": ("order", "numbers"),
    "step_sizes": ("dt", "weight", "delta"),
    "add_orders": ("y", "out"),
}
LARGE = ("size", "count")  # sizes and strides of whole tensors: these and all that end in _batch, _group and _stride
ALIGNED = ("rows", "padded")  # to 16: what the operators make themselves
STATES = (1, 16, 64)  # that a kernel is compiled for; fewer run on the next of these
OLDEST = 80  # compute capability: Ampere
PTX_VERSION = 80  # of CUDA 12.0


def kernels() -> Iterator[tuple[str, str, dict, dict]]:
    """Name in the library, function, constants and launch options of every kernel."""
    for name in ("token_numbers", "step_sizes", "add_orders"):
        yield name, name, {}, {"num_warps": 4}
    for NP in STATES:
        registers = {"maxnreg": 128} if NP <= 16 else {}
        for ORDER in (0, 1):
            yield f"pack {NP} {ORDER}", "pack", {"NP": NP, "ORDER": bool(ORDER)}, {"num_warps": 4}
        yield f"carry {NP}", "carry", {"NP": NP}, {"num_warps": 1}
        for phase, z, softplus, ordered in _uses():
            given = {"PHASE": phase, "HAS_Z": bool(z), "SOFTPLUS": bool(softplus), "ORDER": bool(ordered)}
            constants = {"NP": NP, "T": 8 if NP == 1 else 4} | given
            yield f"scan {NP} {phase} {z} {softplus} {ordered}", "scan", constants, {"num_warps": 1} | registers


def _uses() -> Iterator[tuple[int, int, int, int]]:
    """PHASE, HAS_Z, SOFTPLUS, ORDER of the kernels of a scan: orders come with softplus and without z."""
    for phase in (0, 1, 2):
        for z in (0, 1) if phase != 1 else (0,):
            yield phase, z, 0, 0
            yield phase, z, 1, 0
        yield phase, 0, 1, 1


def ptx_source() -> str:
    """A table of all kernels in C++, as ort_cuda.cpp reads it.

    Raises:
        RuntimeError: Triton only interprets its kernels here.
    """
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # read at every compilation
    from mamba_vision.kernels.native import gpu_kernels
    from mamba_vision.kernels.triton_common import INTERPRETED

    if INTERPRETED:
        raise RuntimeError("TRITON_INTERPRET is set")
    rows = []
    for name, function, constants, options in kernels():
        ptx, shared = _compiled(getattr(gpu_kernels, function), constants, options)
        entry = re.search(r"\.entry\s+(\w+)\((.*?)\)", ptx, re.DOTALL)
        parameters = entry[2].count(".param")
        pieces = "\n".join(f'R"ptx({ptx[i : i + 15000]})ptx"' for i in range(0, len(ptx), 15000))
        threads = 32 * options["num_warps"]
        rows.append(f'{{"{name}", "{entry[1]}", {threads}, {shared}, {parameters},\n{pieces}}},\n')
    return "const Kernel KERNELS[] = {\n" + "".join(rows) + "};\n"


def _compiled(function, constants: dict, options: dict) -> tuple[str, int]:
    """PTX, and bytes of shared memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = POINTERS[function.fn.__name__]
    integers = {"numbers": "*i32", "order": "*i64" if "numbers" in pointers else "*i32"}
    signature = {}
    for name in function.arg_names:
        if name in pointers:
            signature[name] = integers.get(name, "*fp32")
        elif name in constants:
            signature[name] = "constexpr"
        else:
            signature[name] = "i64" if name in LARGE or name.endswith(("_batch", "_group", "_stride")) else "i32"
    aligned = {(function.arg_names.index(n),): [["tt.divisibility", 16]] for n in ALIGNED if n in function.arg_names}
    source = ASTSource(function, signature, constants, aligned)
    made = triton.compile(
        source,
        target=GPUTarget("cuda", OLDEST, 32),
        options={"num_stages": 1, "enable_fp_fusion": True, "ptx_version": PTX_VERSION, **options},
    )
    return made.asm["ptx"], made.metadata.shared
