"""Registered networks against published ones: samples a second and memory of inference and training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mamba_vision.apis.benchmark_timing import cpu_time, throughput_time
from mamba_vision.models.cuda_graphs import cuda_graphed, without_cuda_graphs
from mamba_vision.registry import MODELS

# our arch: the published file's key
_PUBLISHED = {
    "VMamba:tiny": "vmamba_t_s1l8_224",
    "VMamba:tiny_s2l5": "vmamba_t_s2l5_224",
    "Vim:tiny": "vim_t_224",
    "Vim:small": "vim_s_224",
    "SegMamba:brats2023": "segmamba_128_b2",
}
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def benchmark_network(
    name: str,
    size: Sequence[int],
    device: str,
    dtype: str = "bfloat16",
    repeats: int = 30,
    published: Mapping[str, Mapping[str, float]] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Inference and training (forward and backward, no optimizer) of one network, under autocast.

    On a GPU twice: launched one by one, and replayed as CUDA graphs (`mamba_vision.cuda_graphed`), which takes the host
    out of it.

    Args:
        name: a registered model, Name or Name:arch.
        size: (batch, channels, height, width) or (batch, channels, depth, height, width); a network for volumes that
            is given the former takes (2, 4, 128, 128, 128).
        device: 'cuda' or 'cpu'.
        dtype: 'bfloat16', 'float16' or 'float32', which is without autocast.
        repeats: timed calls, a third of it on a GPU; one on a CPU.
        published: what to compare with, by network and precision.
        say: takes a line about CUDA graphs that cannot be made.

    Returns:
        model, input, dtype; of inference and training, also with the ending _graph: *_per_s (samples), *_MiB (peak on
        a GPU); *_ratio and *_memory_ratio to the published.
    """
    kind, _, arch = name.partition(":")
    spec: dict[str, Any] = {"type": kind, **({"arch": arch} if arch else {})}
    size = tuple(size)
    if kind in ("SegMamba", "UMamba"):
        size = (2, 4, 128, 128, 128) if len(size) == 4 else size
        spec["in_channels"] = size[1]
    model = MODELS.build(spec).to(device)
    autocast = getattr(torch, dtype)
    x = [torch.randn(size, device=device) for _ in range(2)]

    def run(i: int, training: bool) -> None:
        with torch.set_grad_enabled(training), torch.autocast(device, autocast, enabled=autocast != torch.float32):
            out = model(x[i])
        if training:
            total = sum(o.float().mean() for o in (out if isinstance(out, (list, tuple)) else [out]))
            total.backward()
            model.zero_grad(set_to_none=True)

    row = {"model": name, "input": list(size), "dtype": dtype}
    with _algorithms_tried_out():
        for key, training in (("inference", False), ("training", True)):
            model.train(training)
            runs = [lambda i=i, training=training: run(i, training) for i in range(2)]
            if device == "cpu":
                row[f"{key}_per_s"] = size[0] / cpu_time(runs[0], 1) * 1e6
                continue
            for _ in range(3):
                runs[0]()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            row[f"{key}_per_s"] = size[0] / throughput_time(runs, max(5, repeats // 3)) * 1e6
            row[f"{key}_MiB"] = torch.cuda.max_memory_allocated() / 2**20
            try:
                cuda_graphed(model)
                runs[0]()
                row[f"{key}_graph_per_s"] = size[0] / throughput_time(runs, max(5, repeats // 3)) * 1e6
                row[f"{key}_graph_MiB"] = torch.cuda.max_memory_allocated() / 2**20
            except (RuntimeError, ValueError) as error:  # something in the model can't be captured
                say(f"{name}, {key}: no CUDA graph: {str(error).splitlines()[0]}")
            without_cuda_graphs(model)
    values = (published or {}).get(f"{_PUBLISHED.get(name)}_{_SHORT[dtype]}")
    if values and values["batch"] == size[0]:
        for key in ("inference", "training"):
            row[f"{key}_ratio"] = row[f"{key}_per_s"] / values[f"{key}_per_s"]
            if f"{key}_graph_per_s" in row:
                row[f"{key}_graph_ratio"] = row[f"{key}_graph_per_s"] / values[f"{key}_per_s"]
            row[f"{key}_memory_ratio"] = row[f"{key}_MiB"] / values[f"{key}_MiB"]
    return row


@contextmanager
def _algorithms_tried_out() -> Iterator[None]:
    """cuDNN measures before it chooses, as in the recipes: its first choices take up to twice the time."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
