"""Logits of a whole volume by overlapping windows, in bounded memory however large the volume is.

MONAI's SlidingWindowInferer predicts one tile at a time (a slab of the volume, one window thick); the tiles are added
up here, in memory or in a file. Window weights are a product of one weight per axis, so the weighted mean over windows
can be taken axis by axis, and the result is the same however the volume is cut into tiles.

Layouts: image (C, S0, S1, S2), logits (K, S0, S1, S2), in the network's axes.
"""

import itertools
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from mamba_vision.utils.memory import available_memory, format_size
from mamba_vision.utils.scratch_array import ScratchArray

Predictor = Callable[[Tensor], Tensor]
BUFFERS = ("auto", "memory", "file", "gpu")
_SIGMA = 0.125  # of the Gaussian, in window sides
_COPIES = 3  # a tile is held by MONAI as sum and as count, and once more while it is added


class LogitsStore:
    """Room for (K, S0, S1, S2) float32 sums: zeros in memory or in a file (ScratchArray), or on a GPU.

    Attributes:
        array: the sums, writable; a tensor on a GPU, else a NumPy array.
        where: what was chosen, in words.
        windows: how many predictions were added up.
    """

    def __init__(
        self, shape: Sequence[int], scratch: str | Path | None, device: torch.device | str | None = None
    ) -> None:
        """`scratch`: folder of the file; None keeps the sums in memory, or on `device` if one is given.

        Raises:
            OSError: the folder has not enough room.
        """
        self._scratch = None
        self.windows = 0
        if device is not None:
            self.array = torch.zeros(tuple(shape), device=device)
            self.where = f"{format_size(math.prod(shape) * 4)} of logits on {device}"
            return
        self._scratch = ScratchArray(shape, scratch)
        self.array, self.where = self._scratch.array, self._scratch.where

    def add(self, place: tuple[slice, ...], logits: Tensor) -> None:
        """Add (K, *tile) at `place` of (S0, S1, S2)."""
        part = self.array[(slice(None), *place)]
        target = part if isinstance(part, Tensor) else torch.from_numpy(part)
        target.add_(logits.to(target.device))

    def release(self, rows: int) -> None:
        """The first `rows` rows of axis S0 are not needed soon: their memory, not what is there, goes to the system."""
        if self._scratch is not None:
            self._scratch.release(rows)

    def close(self) -> None:
        """Give memory and file back; `array` must not be used any more."""
        self.array = None
        if self._scratch is not None:
            self._scratch.close()

    def __enter__(self) -> "LogitsStore":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def sliding_window_logits(
    image_CS: np.ndarray,
    predictor: Predictor,
    window: Sequence[int],
    classes: int,
    *,
    overlap: float = 0.5,
    device: torch.device | str = "cpu",
    batch_size: int = 1,
    max_memory: int | None = None,
    scratch: str | Path | None = None,
    buffer: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> LogitsStore:
    """Mean of the predictions of all windows, Gaussian weights (sigma 1/8 of the window), as MONAI and nnU-Net do it.

    Args:
        image_CS: (C, S0, S1, S2) float32; a side smaller than the window is padded with zeros.
        predictor: (B, C, *window) on `device` to logits (B, classes, *window).
        window: three sides in voxels.
        overlap: of neighbouring windows, as a fraction of the window, in [0, 1).
        device: where windows are predicted.
        batch_size: windows predicted together.
        max_memory: bytes of main memory for the logits; None takes half of what is free. Above it the logits go to a
            temporary file, and the tiles get smaller.
        scratch: folder of that file; None is the system's.
        buffer: one of BUFFERS: 'auto' as just said, 'memory' or 'file' whatever the limit, 'gpu' the memory of
            `device`, where the whole volume is then added up.
        progress: called with the number of windows done (first 0) and of all.

    Raises:
        ValueError: an image that is not (C, S0, S1, S2), an overlap outside [0, 1), or an unknown buffer.
        OSError: no room for the temporary file.
    """
    if image_CS.ndim != 4 or len(window) != 3:
        raise ValueError(f"image_CS and window: expected 4 and 3 axes, found {image_CS.shape} and {tuple(window)}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a number in [0, 1), found {overlap}")
    if buffer not in BUFFERS:
        raise ValueError(f"buffer: expected one of {', '.join(BUFFERS)}, found {buffer!r}")
    device = torch.device(device)
    size = image_CS.shape[1:]
    window = tuple(int(side) for side in window)
    starts = [_starts(length, side, overlap) for length, side in zip(size, window)]
    shares = [_shares(length, side, places) for length, side, places in zip(size, window, starts)]
    limit = max_memory or available_memory() // 2
    tiled, in_file = _choose(size, window, classes, limit)
    if buffer == "gpu":
        tiled = 1
    in_file = buffer == "file" or (in_file and buffer == "auto")
    store = LogitsStore(
        (classes, *size), (scratch or tempfile.gettempdir()) if in_file else None, device if buffer == "gpu" else None
    )
    store.where += f" (limit {format_size(limit)})" if buffer == "auto" else ""

    total, done = math.prod(len(places) for places in starts), 0

    def predict(windows: Tensor) -> Tensor:
        nonlocal done
        logits = predictor(windows)
        done += len(windows)
        if progress is not None:
            progress(done, total)
        return logits.float()

    tile_size = [min(side, length) for side, length in zip(window[:tiled], size)] + list(size[tiled:])
    inferer = SlidingWindowInferer(
        window, sw_batch_size=batch_size, overlap=overlap, mode="gaussian", sigma_scale=_SIGMA, sw_device=device,
        device=device if buffer == "gpu" else _stitching_device(device, 4 * classes * math.prod(tile_size)),
    )  # fmt: skip
    inferer.roi_weight_map = _weights(window)
    if progress is not None:
        progress(0, total)
    try:
        for corner in itertools.product(*starts[:tiled]):
            tile = tuple(slice(start, start + side) for start, side in zip(corner, tile_size))
            pixels = torch.from_numpy(np.ascontiguousarray(image_CS[(slice(None), *tile)], dtype=np.float32))[None]
            logits = inferer(pixels, predict)[0]
            logits = logits if buffer == "gpu" else logits.cpu()
            for axis, (start, side) in enumerate(zip(corner, tile_size)):
                share = shares[axis][start][:side].to(logits.device)
                logits *= share.reshape(-1, *[1] * (2 - axis))
            store.add(tile, logits)
            store.release(corner[0])
        store.release(size[0])
        store.windows = done
    except BaseException:
        store.close()
        raise
    return store


def mirrored(predictor: Predictor, axes: Sequence[int]) -> Predictor:
    """The predictor's mean over all mirrored copies along `axes` (0, 1, 2 of a window): 2 ** len(axes) predictions."""
    subsets = itertools.chain.from_iterable(itertools.combinations(axes, count) for count in range(len(axes) + 1))
    flips = [[axis + 2 for axis in subset] for subset in subsets]

    def predict(windows: Tensor) -> Tensor:
        total = predictor(windows).float()
        for dims in flips[1:]:
            total = total + predictor(windows.flip(dims)).float().flip(dims)
        return total / len(flips)

    return predict


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where MONAI puts windows along an axis: evenly, the last one moved back to end with the volume."""
    interval = max(1, int(side * (1 - overlap)))
    return [int(one.start) for (one,) in dense_patch_slices((max(length, side),), (side,), (interval,))]


def _profile(side: int) -> Tensor:
    return compute_importance_map((side,), mode="gaussian", sigma_scale=_SIGMA, dtype=torch.float32)


def _weights(window: Sequence[int]) -> Tensor:
    """Product of the axes' Gaussians; MONAI's own map has a floor, and is then no product."""
    one, two, three = (_profile(side) for side in window)
    return one[:, None, None] * two[:, None] * three


def _shares(length: int, side: int, starts: list[int]) -> dict[int, Tensor]:
    """For each window along one axis the part that it has in the weighted mean at its voxels; they add up to 1."""
    if length <= side:
        return {0: torch.ones(length)}
    profile, total = _profile(side), torch.zeros(length)
    for start in starts:
        total[start : start + side] += profile
    return {start: profile / total[start : start + side] for start in starts}


def _choose(size: Sequence[int], window: Sequence[int], classes: int, limit: int) -> tuple[int, bool]:
    """How many axes are cut to one window's side, and whether the logits go to a file, to stay within `limit` bytes.

    The fewer the cuts the larger the batches that MONAI can make, so they come only as memory asks for them.
    """
    whole = 4 * classes * math.prod(size)
    padded = [max(pair) for pair in zip(size, window)]
    tiles = [4 * _COPIES * classes * math.prod((*window[:cut], *padded[cut:])) for cut in (1, 2, 3)]
    for in_file, left in ((False, limit - whole), (True, limit)):
        for cut, tile in enumerate(tiles, 1):
            if tile <= left:
                return cut, in_file
    return 3, True


def _stitching_device(device: torch.device, tile: int) -> torch.device:
    """A tile is put together on the GPU if it takes little of what is free there: one copy instead of one a window."""
    if device.type == "cuda" and 2 * tile < torch.cuda.mem_get_info(device)[0] // 4:
        return device
    return torch.device("cpu")
