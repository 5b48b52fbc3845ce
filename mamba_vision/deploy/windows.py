"""Predictions of large images and volumes by overlapping windows, in NumPy: weighted means, as our tools take them.

Window weights are a product of one weight per axis, so each window's share in the mean is known beforehand, axis by
axis, and results are added up without a second array of counts.

Layouts: image (C, *S), logits (K, *S).
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

Predictor = Callable[[np.ndarray], np.ndarray]


def gaussian(side: int, sigma: float = 0.125) -> np.ndarray:
    """Weights of a window along one axis, (side,): a Gaussian of `sigma` sides, at least 0.001."""
    x = np.arange(side) - (side - 1) / 2
    return np.maximum(np.exp(-0.5 * (x / (sigma * side)) ** 2), 1e-3).astype(np.float32)


def starts(length: int, side: int, interval: int) -> list[int]:
    """First cells of the windows along an axis: `interval` apart, the last one moved back to end with the image."""
    if length <= side:
        return [0]
    count = -(-(length - side) // interval) + 1
    return [min(number * interval, length - side) for number in range(count)]


def sliding_window(
    image: np.ndarray,
    predict: Predictor,
    window: Sequence[int],
    intervals: Sequence[int],
    out: np.ndarray,
    profile: Callable[[int], np.ndarray] = gaussian,
    progress: Callable[[int, int], None] | None = None,
    finished: Callable[[int], None] | None = None,
) -> None:
    """Add the weighted mean of all windows' predictions to `out`.

    Args:
        image: (C, *S); sides smaller than the window are filled up with zeros, on both sides.
        predict: (1, C, *window) to (1, K, *window).
        window: sides.
        intervals: from one window to the next, along each axis.
        out: (K, *S) float32, zeros, or a part of a larger sum.
        profile: weights of a window along an axis of that length.
        progress: called with windows done and all windows.
        finished: called with a number of rows along the first axis to which nothing is added any more.
    """
    sides = image.shape[1:]
    padded = [max(pair) for pair in zip(sides, window)]
    before = [(want - have) // 2 for have, want in zip(sides, padded)]
    firsts = [starts(*one) for one in zip(padded, window, intervals)]
    shares = [_shares(*one, profile) for one in zip(padded, window, firsts)]
    total = np.prod([len(one) for one in firsts], dtype=int)
    for done, corner in enumerate(itertools.product(*firsts), start=1):
        if finished is not None:
            finished(corner[0])
        inside, target = [slice(None)], [slice(None)]  # what of the window is image, and where it lies there
        for first, margin, side, length in zip(corner, before, window, sides):
            low, high = max(first, margin), min(first + side, margin + length)
            inside.append(slice(low - first, high - first))
            target.append(slice(low - margin, high - margin))
        part = np.zeros((1, len(image), *window), np.float32)
        part[0][tuple(inside)] = image[tuple(target)]
        logits = predict(part)[0]
        for axis, first in enumerate(corner):
            logits = logits * shares[axis][first].reshape(-1, *[1] * (len(sides) - 1 - axis))
        out[tuple(target)] += logits[tuple(inside)]
        if progress is not None:
            progress(done, int(total))


def _shares(
    length: int, side: int, firsts: Sequence[int], profile: Callable[[int], np.ndarray]
) -> dict[int, np.ndarray]:
    """The part that each window has in the mean at its cells along one axis; they add up to 1."""
    weights, total = profile(side), np.zeros(length, np.float32)
    for first in firsts:
        total[first : first + side] += weights
    return {first: weights / total[first : first + side] for first in firsts}


def mirrored(predict: Predictor, axes: Sequence[int]) -> Predictor:
    """The mean over all mirrored copies along `axes` (0, 1 ... of a window): 2 ** len(axes) predictions."""
    subsets = itertools.chain.from_iterable(itertools.combinations(axes, count) for count in range(len(axes) + 1))
    flips = [tuple(axis + 2 for axis in subset) for subset in subsets]

    def mean(windows: np.ndarray) -> np.ndarray:
        total = predict(windows)
        for flip in flips[1:]:
            total = total + np.flip(predict(np.ascontiguousarray(np.flip(windows, flip))), flip)
        return total / len(flips)

    return mean
