"""Solvers of ordinary differential equations on tensors: x' = f(x, t).

Each is an iterator over the states at `times`, the first of which is x itself. Times may rise or fall.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import isfinite

import torch
from scipy.integrate import RK45
from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]  # (x, time as a tensor without axes) -> x'

SAFETY, GROW, SHRINK = 0.9, 10.0, 0.2  # limits on how a step follows the one before
ORDER = 5
# Shampine's embedded formula (Mathematics of Computation 46, 1986) differs from Dormand and Prince's by this factor.
ERROR = -2 / 3 * RK45.E


def euler(field: Field, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    """One evaluation a step, error of first order."""
    yield x
    for now, then in pairwise(times):
        x = x + (then - now) * field(x, now)
        yield x


def heun(field: Field, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    """Two evaluations a step, error of second order: the mean of the slopes at both ends."""
    yield x
    for now, then in pairwise(times):
        slope = field(x, now)
        x = x + 0.5 * (then - now) * (slope + field(x + (then - now) * slope, then))
        yield x


def dopri5(field: Field, x: Tensor, times: Tensor, rtol: float = 1e-3, atol: float = 1e-6) -> Iterator[Tensor]:
    """Dormand and Prince's pair of orders 5 and 4 with steps of its own choice.

    SciPy's tableau and dense output (Shampine 1986) with the first step and the control of Hairer, Norsett and Wanner,
    "Solving Ordinary Differential Equations I", II.4: one error for the whole batch, a root mean square. As in
    torchdiffeq, which published samples come from, steps don't stop at the given times: a state is interpolated, and
    the last step may look beyond the end. Where that has no finite value the step is cut.

    Raises:
        FloatingPointError: steps became too small to change the time.
    """
    yield x
    sign = 1.0 if times[-1] >= times[0] else -1.0

    def slope_at(state: Tensor, at: float) -> Tensor:
        return sign * field(state, torch.tensor(sign * at, device=x.device, dtype=x.dtype))

    time = sign * float(times[0])
    slope = slope_at(x, time)
    if not slope.isfinite().all():
        raise FloatingPointError(f"dopri5: no finite values to begin with at t = {sign * time:.6g}")
    step = _first_step(slope_at, x, slope, time, rtol, atol)
    # The last accepted step: where it began, its length, its state and stages.
    before, length, start, stages = time, 0.0, x, [slope] * len(RK45.P)
    for target in (sign * float(value) for value in times[1:]):
        while time < target:
            if not time + step > time:  # a step that is not a number, too
                raise FloatingPointError(f"dopri5: no finite values to go on with at t = {sign * time:.6g}")
            trial, ks, error = _step(slope_at, x, slope, time, step)
            scale = atol + rtol * torch.maximum(x.abs(), trial.abs())
            ratio = float(_rms(error / scale))
            if ratio <= 1:
                before, length, start, stages = time, step, x, ks
                time, x, slope = time + step, trial, ks[-1]
                step *= GROW if ratio == 0 else min(GROW, max(SAFETY * ratio ** (-1 / ORDER), 1.0))
            else:  # not a number compares as false, too
                step *= max(SAFETY * ratio ** (-1 / ORDER), SHRINK) if ratio < float("inf") else SHRINK
        share = (target - before) / length if length else 0.0
        weights = RK45.P @ [share ** (power + 1) for power in range(RK45.P.shape[1])]
        yield start + length * _mix(weights, stages)


def _step(
    slope_at: Callable[[Tensor, float], Tensor], x: Tensor, slope: Tensor, time: float, step: float
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The state behind a step, the slopes on its way (the last one is the next step's first), the error."""
    ks = [slope]
    for weights, share in zip(RK45.A[1:], RK45.C[1:]):
        ks.append(slope_at(x + step * _mix(weights, ks), time + share * step))
    trial = x + step * _mix(RK45.B, ks)
    ks.append(slope_at(trial, time + step))
    return trial, ks, step * _mix(ERROR, ks)


def _first_step(
    slope_at: Callable[[Tensor, float], Tensor], x: Tensor, slope: Tensor, time: float, rtol: float, atol: float
) -> float:
    scale = atol + rtol * x.abs()
    size, speed = float(_rms(x / scale)), float(_rms(slope / scale))
    guess = 1e-6 if min(size, speed) < 1e-5 else 0.01 * size / speed
    bend = float(_rms((slope_at(x + guess * slope, time + guess) - slope) / scale)) / guess
    if not isfinite(bend):
        return guess
    if max(speed, bend) <= 1e-15:
        return min(100 * guess, max(1e-6, 1e-3 * guess))
    return min(100 * guess, (0.01 / max(speed, bend)) ** (1 / ORDER))


def _mix(weights: list[float], tensors: list[Tensor]) -> Tensor:
    return sum(float(weight) * tensor for weight, tensor in zip(weights, tensors) if weight)


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


SOLVERS = {"euler": euler, "heun": heun, "dopri5": dopri5}
