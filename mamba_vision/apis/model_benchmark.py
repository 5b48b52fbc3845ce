"""Whole models side by side: throughput, latency and memory, forward alone and with backward, by size and precision."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml
from torch import nn

from mamba_vision.apis.model_names import find_variant
from mamba_vision.apis.models import get_model
from mamba_vision.utils.paths import project_folder

# name: (dtype of autocast or None, whether float32 products may be TensorFloat-32)
PRECISIONS = {
    "fp32": (None, False),
    "tf32": (None, True),
    "bf16": (torch.bfloat16, True),
    "fp16": (torch.float16, True),
}
MODES = ("inference", "training")


@dataclass(frozen=True)
class Timing:
    """One model at one size and precision.

    Attributes:
        mode: 'inference', or 'training': forward and backward, no optimizer.
        images_per_s: calls one behind the other, without waiting in between.
        p50_ms, p95_ms: how long one call takes until its result is there.
        spread: standard deviation of that over its mean.
        memory_mib: peak on a GPU, weights included; None elsewhere.
        top1: published accuracy on ImageNet-1k in percent, where known.
        error: why there are no numbers.
    """

    model: str
    parameters: int
    size: int
    precision: str
    mode: str
    batch_size: int
    images_per_s: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    spread: float | None = None
    memory_mib: float | None = None
    top1: float | None = None
    error: str | None = None


def benchmark_models(
    names: Sequence[str],
    sizes: Sequence[int] = (224,),
    precisions: Sequence[str] = ("fp32",),
    batch_size: int = 1,
    modes: Sequence[str] = MODES,
    device: str | torch.device = "cpu",
    warmup: int = 3,
    repeats: int = 20,
) -> Iterator[Timing]:
    """Time classifiers on random images, one row after the other.

    Args:
        names: of `mamba_vision.list_models()`, or torchvision's ('resnet50'), which have the same 1000 classes.
        sizes: sides of the images.
        precisions: of `PRECISIONS`.
        batch_size: images a call.
        modes: of `MODES`.
        warmup: calls that are not counted.
        repeats: calls that are.

    Raises:
        ValueError: an unknown name or precision. What fails while it runs (memory, a size that a model does not take)
            is told in its row.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ValueError(f"precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}")
    models = {}
    for name in names:  # all names before any time is spent
        with torch.device("meta"):
            models[name] = sum(p.numel() for p in build_classifier(name).parameters())
    for name, parameters in models.items():
        model, top1 = build_classifier(name).to(device), published_top1(name)
        for size in sizes:
            for precision in precisions:
                for mode in modes:
                    row = dict(model=name, parameters=parameters, size=size, precision=precision, mode=mode)
                    row |= dict(batch_size=batch_size, top1=top1)
                    try:
                        row |= time_classifier(model, size, precision, batch_size, mode, warmup, repeats)
                    except (RuntimeError, ValueError, AssertionError) as error:
                        row["error"] = (str(error).strip() or type(error).__name__).splitlines()[0]
                        model.zero_grad(set_to_none=True)
                    yield Timing(**row)
        del model


def build_classifier(name: str) -> nn.Module:
    """A classifier of 1000 classes by our name or torchvision's, without weights.

    Raises:
        ValueError: neither knows the name, or it is no classifier.
    """
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models):
        return torchvision.models.get_model(name, weights=None)
    try:
        variant = find_variant(name)
    except ValueError as error:
        raise ValueError(f"{error}; of others, torchvision's names are known, such as resnet50") from None
    if not variant.is_backbone:
        raise ValueError(f"{name}: is no backbone of a classifier, expected one, such as vmamba_tiny or resnet50")
    return get_model(name)


def time_classifier(
    model: nn.Module, size: int, precision: str, batch_size: int, mode: str, warmup: int = 3, repeats: int = 20
) -> dict[str, float | None]:
    """The measured fields of a `Timing`."""
    device = next(model.parameters()).device
    x = torch.randn(batch_size, 3, size, size, device=device)
    training = mode == "training"
    model.train(training)

    def run() -> None:
        with torch.set_grad_enabled(training), _precision(precision, device.type):
            out = model(x)
            if training:
                out.float().mean().backward()
        if training:
            model.zero_grad(set_to_none=True)

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(warmup):
        run()
    wait()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [_timed(run, wait) for _ in range(repeats)]
    whole = sum(seconds)
    if device.type == "cuda":  # where waiting after each call costs something
        whole = _timed(lambda: [run() for _ in range(repeats)], wait)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    ranked, mean = sorted(seconds), statistics.fmean(seconds)
    return dict(
        images_per_s=batch_size * repeats / whole,
        p50_ms=1e3 * statistics.median(ranked),
        p95_ms=1e3 * ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))],
        spread=statistics.pstdev(seconds) / mean,
        memory_mib=memory,
    )


def published_top1(name: str) -> float | None:
    """Top-1 accuracy on ImageNet-1k that a model was published with, in percent: of our metafiles, or torchvision's."""
    import torchvision

    if name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            return weights.meta["_metrics"].get("ImageNet-1K", {}).get("acc@1")
    try:
        variant = find_variant(name)
    except ValueError:
        return None
    for other, top1 in _published_here().items():
        same = find_variant(other)
        if same.system is variant.system and same.settings == variant.settings:
            return top1
    return None


@cache
def _published_here() -> dict[str, float]:
    """Top-1 accuracies of the shipped metafiles by variant: a configuration's name begins with its variant's."""
    found = {}
    for file in sorted(project_folder("configs").glob("*/metafile.yml")):
        for model in yaml.safe_load(file.read_text())["Models"]:
            for result in model.get("Results") or ():
                top1 = result.get("Metrics", {}).get("Top 1 Accuracy")
                if top1 is not None and str(result.get("Dataset", "")).lower() == "imagenet-1k":
                    try:
                        found[find_variant(Path(model["Config"]).stem.split("_")[0]).name] = float(top1)
                    except ValueError:  # the name says no variant
                        continue
    return found


def _timed(run: Callable[[], object], wait: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


@contextmanager
def _precision(name: str, device: str) -> Iterator[None]:
    dtype, tf32 = PRECISIONS[name]
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.autocast(device, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
