"""Random inputs of the ops, and the comparison of a backend with the reference in float64, every gradient included."""

from collections.abc import Callable

import torch

from mamba_vision.kernels import use_backend

# relative to the norm of a tensor; the output of a half op is rounded once, its gradients a few times
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}

Inputs = dict[str, torch.Tensor | None]


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """‖got - want‖ / ‖want‖ in float64; infinite for another shape or values that are not finite."""
    got, want = got.detach().cpu(), want.detach().cpu()
    if got.shape != want.shape or not got.isfinite().all():
        return float("inf")
    if not want.numel():
        return 0.0
    wide = torch.complex128 if want.is_complex() else torch.float64
    return float((got.to(wide) - want.to(wide)).norm() / max(float(want.to(wide).norm()), 1e-6))


def scan_inputs(
    batch=2, channels=6, length=19, state=4, groups=2, B="grouped", C="grouped", z=True, D=True, bias=True, initial=True
) -> Inputs:
    """Inputs of selective_scan in float64; B and C "constant", "shared" (batch, state, length) or "grouped"."""

    def matrix(kind: str) -> torch.Tensor:
        shape = {
            "constant": (channels, state),
            "shared": (batch, state, length),
            "grouped": (batch, groups, state, length),
        }[kind]
        return torch.randn(shape, dtype=torch.float64)

    def normal(*shape: int, wanted: bool = True) -> torch.Tensor | None:
        return torch.randn(shape, dtype=torch.float64) if wanted else None

    return {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length) * 0.7,
        "A": -torch.rand(channels, state, dtype=torch.float64) * 4,
        "B": matrix(B),
        "C": matrix(C),
        "D": normal(channels, wanted=D),
        "z": normal(batch, channels, length, wanted=z),
        "delta_bias": normal(channels) - 1.5 if bias else None,
        "initial_state": normal(batch, channels, state, wanted=initial),
    }


def results_and_gradients(op: Callable, inputs: Inputs, weights: list[torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """The op's results, named result0 ..., and the gradient of their weighted sum for every floating-point input."""
    leaves = {
        k: v.detach().clone().requires_grad_() for k, v in inputs.items() if v is not None and v.is_floating_point()
    }
    results = op(**{**inputs, **leaves})
    results = results if isinstance(results, tuple) else (results,)
    if weights is None:
        weights = [torch.ones_like(r) for r in results]
    loss = sum((r * w.to(r)).sum() for r, w in zip(results, weights))
    loss.backward()
    found = {f"result{i}": r for i, r in enumerate(results)}
    return {**found, **{f"gradient of {k}": v.grad for k, v in leaves.items()}}


def compare(
    op: Callable,
    inputs: Inputs,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    parameters: tuple[str, ...] = (),
    tolerance: float | None = None,
) -> None:
    """Hold `op`, on the backend that is on, against the reference in float64 on the same (rounded) inputs.

    Args:
        op: called with `inputs` by name; returns a tensor or a tuple of tensors.
        inputs: float64 tensors, integers and None.
        dtype: dtype of the inputs, except those called `parameters`, which are float32 for half dtypes.
    """
    half = dtype in (torch.float16, torch.bfloat16)

    def rounded(name: str, tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None or not tensor.is_floating_point():
            return tensor
        return tensor.to(torch.float32 if half and name in parameters else dtype)

    given = {name: rounded(name, tensor) for name, tensor in inputs.items()}
    exact = {k: v.double() if v is not None and v.is_floating_point() else v for k, v in given.items()}
    with use_backend("reference"):
        shapes = op(**exact)
        shapes = shapes if isinstance(shapes, tuple) else (shapes,)
        weights = [torch.randn(r.shape, dtype=torch.float64) for r in shapes]
        want = results_and_gradients(op, exact, weights)
    placed = {k: v if v is None else v.to(device) for k, v in given.items()}
    got = results_and_gradients(op, placed, [w.to(device) for w in weights])
    limit = tolerance or TOLERANCES[dtype]
    bad = {k: e for k in want if not (e := relative_error(got[k], want[k])) <= limit}
    assert not bad, f"relative errors over {limit}: {bad}"
    for name, leaf in placed.items():
        if leaf is not None and leaf.is_floating_point():
            assert got[f"gradient of {name}"].dtype == leaf.dtype
