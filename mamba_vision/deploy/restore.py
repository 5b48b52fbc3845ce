"""Restoring pictures, fusing two, and sharpening one by another, with an exported model: in blended tiles.

Layouts: images (C, H, W) float32 in [0, 1].
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mamba_vision.deploy.metadata import number
from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.deploy.pictures import resize
from mamba_vision.utils.tiling import Band, Tiling, bands

Progress = Callable[[int, int], None]
_GRAY = np.float32([0.299, 0.587, 0.114])


class _Tiled:
    """A model that is applied to tiles."""

    tasks: tuple[str, ...] = ()
    usual_tile = 200

    def __init__(self, model: str | Path | ModelFile, **options) -> None:
        self.model = model if isinstance(model, ModelFile) else ModelFile(model, **options)
        self.model.expect(*self.tasks)
        self.scale = int(number(self.model.info, "scale", 1, 64)) if "scale" in self.model.info else 1
        found = self.model.info.get("tiling") or {"tile": self.usual_tile}
        self.tiling = Tiling(**found)

    def _run(self, x: np.ndarray, call: Callable[[np.ndarray], np.ndarray], progress: Progress | None) -> np.ndarray:
        """`call` on tiles of x (C, H, W), put together to (C', scale H, scale W)."""
        fixed = (self.model.side(2), self.model.side(3))
        if None not in fixed:
            return _fixed_tiles(x, fixed, self.scale, call, progress)
        height, width = x.shape[1:]
        rows, columns = bands(height, self.tiling), bands(width, self.tiling)
        x = _mirrored_to(x, (rows[-1].core_stop, columns[-1].core_stop))
        out, done = None, 0
        for row in rows:
            for column in columns:
                tile = call(x[:, row.start : row.stop, column.start : column.stop])
                if out is None:
                    out = np.zeros((len(tile), self.scale * x.shape[1], self.scale * x.shape[2]), np.float32)
                place = [slice(self.scale * one.start, self.scale * one.stop) for one in (row, column)]
                weights = [_fade(one, self.scale) for one in (row, column)]
                out[:, place[0], place[1]] += tile * weights[0][:, None] * weights[1]
                done += 1
                if progress is not None:
                    progress(done, len(rows) * len(columns))
        return out[:, : self.scale * height, : self.scale * width]


class Restorer(_Tiled):
    """Restores pictures: super-resolution, denoising, artefacts of compression."""

    tasks = ("restoration",)

    def __call__(self, picture: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """(H, W, 3) RGB or (H, W, 1) gray, float32 in [0, 1], to the same kind, `scale` times as large.

        A model for colour restores gray as three equal channels; one for gray restores the luminance of colour, which
        is enlarged by bicubic interpolation.
        """
        x = np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32)
        gray, channels = len(x) == 1, self.model.info["channels"]
        if channels == 3:
            out = self._restore(x.repeat(3, 0) if gray else x, progress)
            out = np.tensordot(_GRAY, out, 1)[None] if gray else out
        else:
            y = x if gray else np.tensordot(_GRAY, x, 1)[None]
            out = self._restore(y, progress)
            if not gray:  # luminance is linear: what is added to it is added to every channel
                out = np.clip(self.enlarge(x - y) + out, 0, 1)
        return out.transpose(1, 2, 0)

    def enlarge(self, x: np.ndarray) -> np.ndarray:
        """(..., H, W) by bicubic interpolation, for what does not go through the network."""
        return x if self.scale == 1 else resize(x, [self.scale * side for side in x.shape[-2:]], "bicubic")

    def _restore(self, x: np.ndarray, progress: Progress | None) -> np.ndarray:
        return np.clip(self._run(x, lambda tile: self.model(_batch(tile))[0], progress), 0, 1)


class Fuser(_Tiled):
    """Makes one picture of two of the same size, such as infrared and visible light."""

    tasks = ("fusion",)

    @property
    def channels(self) -> int:
        """That the network takes of each picture: 1, the luminance, or 3."""
        return self.model.info["channels"]

    def __call__(self, first: np.ndarray, second: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Two pictures (H, W, 1 or 3), float32 in [0, 1], fused; colour is that of the second,
        or of the first if only that has some.

        Raises:
            ValueError: pictures of different sizes, or gray ones for a network that takes colour.
        """
        if first.shape[:2] != second.shape[:2]:
            raise ValueError(f"second: {second.shape[:2]} pixels, expected those of the first, {first.shape[:2]}")
        one, two = (np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float32) for x in (first, second))
        channels = self.channels
        if channels == 1:
            coloured = two if len(two) == 3 else one
            colour = coloured - np.tensordot(_GRAY, coloured, 1)[None] if len(coloured) == 3 else None
            one, two = (np.tensordot(_GRAY, x, 1)[None] if len(x) == 3 else x for x in (one, two))
        else:
            colour = None
            for name, x in (("first", one), ("second", two)):
                if len(x) == 1:
                    raise ValueError(f"{name}: found one channel (gray), this network needs three (RGB)")

        def fuse(tile: np.ndarray) -> np.ndarray:
            return self.model(_batch(tile[:channels]), _batch(tile[channels:]))[0]

        fused = np.clip(self._run(np.concatenate([one, two]), fuse, progress), 0, 1)
        return (fused if colour is None else np.clip(fused + colour, 0, 1)).transpose(1, 2, 0)


class Sharpener(_Tiled):
    """Sharpens an image of many bands by a guide, a whole number of times larger."""

    tasks = ("sharpening",)
    usual_tile = 64

    def __init__(self, model: str | Path | ModelFile, **options) -> None:
        super().__init__(model, **options)
        self.peak = number(self.model.info, "peak", 1e-6, 1e9)

    def __call__(self, image: np.ndarray, guide: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """(bands, h, w) and (channels, scale h, scale w), in the counts of their files, to (bands, scale h, scale w).

        Raises:
            ValueError: see `sharpen`.
        """
        peak = np.float32(self.peak)
        return self.sharpen(*(np.asarray(x).astype(np.float32) / peak for x in (image, guide)), progress) * peak

    def sharpen(self, image: np.ndarray, guide: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """The same in [0, 1].

        Raises:
            ValueError: other bands or channels than the model takes, values that are not finite, or a guide of another
                size.
        """
        scale = self.scale
        for name, array, wanted in (("image", image, "bands"), ("guide", guide, "guide_channels")):
            expected = self.model.info[wanted]
            if array.ndim != 3 or len(array) != expected or not array.size:
                raise ValueError(f"{name}: found shape {array.shape}, expected ({expected}, rows, columns)")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: found values that are not finite")
        want = tuple(scale * side for side in image.shape[1:])
        if guide.shape[1:] != want:
            raise ValueError(f"guide: {guide.shape[1:]} pixels, expected {want}, {scale} times those of the image")
        bands_count, channels = len(image), len(guide)
        small = guide.reshape(channels, want[0] // scale, scale, want[1] // scale, scale)
        small = small.transpose(0, 2, 4, 1, 3).reshape(-1, *image.shape[1:])

        def sharpen(tile: np.ndarray) -> np.ndarray:
            height, width = tile.shape[1:]
            back = tile[bands_count:].reshape(channels, scale, scale, height, width).transpose(0, 3, 1, 4, 2)
            back = back.reshape(channels, scale * height, scale * width)
            return self.model(_batch(tile[:bands_count]), _batch(back))[0]

        return np.clip(self._run(np.concatenate([image, small]), sharpen, progress), 0, 1)


def _batch(tile: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tile[None], dtype=np.float32)


def _mirrored_to(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) grown at its far ends to `size` by mirroring at the last pixels, as often as need be."""
    for axis, length in enumerate(size, start=1):
        present = x.shape[axis]
        period = max(2 * present - 2, 1)
        cells = np.arange(length) % period
        x = np.take(x, np.minimum(cells, period - cells), axis)
    return x


def _fixed_tiles(
    x: np.ndarray, size: tuple[int, int], scale: int, call: Callable, progress: Progress | None
) -> np.ndarray:
    """Tiles of one size, half over each other, under weights that fall to their edges."""
    from mamba_vision.deploy.windows import starts

    height, width = x.shape[1:]
    x = _mirrored_to(x, tuple(max(pair) for pair in zip((height, width), size)))
    places = [starts(length, side, max(1, side // 2)) for length, side in zip(x.shape[1:], size)]
    ramps = [np.minimum(np.arange(scale * side) + 0.5, scale * side - np.arange(scale * side) - 0.5) for side in size]
    weight = (ramps[0][:, None] * ramps[1]).astype(np.float32)
    out = total = None
    for number_of, (top, left) in enumerate([(top, left) for top in places[0] for left in places[1]], start=1):
        tile = call(x[:, top : top + size[0], left : left + size[1]])
        if out is None:
            shape = (scale * x.shape[1], scale * x.shape[2])
            out, total = np.zeros((len(tile), *shape), np.float32), np.zeros(shape, np.float32)
        part = (slice(scale * top, scale * (top + size[0])), slice(scale * left, scale * (left + size[1])))
        out[(slice(None), *part)] += tile * weight
        total[part] += weight
        if progress is not None:
            progress(number_of, len(places[0]) * len(places[1]))
    return (out / total)[:, : scale * height, : scale * width]


def _fade(band: Band, scale: int) -> np.ndarray:
    """One along the band, zero in the outer halves of its margins, slopes between: neighbours' add up to one."""
    weights = np.ones(scale * (band.stop - band.start), np.float32)
    for margin, far in ((band.core_start - band.start, False), (band.stop - band.core_stop, True)):
        if margin == 0:
            continue
        half = margin // 2
        slope = (np.arange(2 * scale * half) + 0.5) / max(2 * scale * half, 1)
        edge = np.concatenate([np.zeros(scale * (margin - half)), slope]).astype(np.float32)
        if far:
            weights[-len(edge) :] *= edge[::-1]
        else:
            weights[: len(edge)] *= edge
    return weights
