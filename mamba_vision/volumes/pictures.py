"""PNG, BMP and TIFF files as volumes, by Pillow: a picture is a slice, a colour a channel, a page of a TIFF a slice.

Pictures say nothing of space. As in nnU-Net a pixel counts as 1 mm wide and high and 999 mm deep; a TIFF of several
pages takes the voxel size from a JSON file beside it, CASE.json with {"spacing": [z, y, x]}, else it is 1 mm. Columns
run to the patient's left and rows to the back, as ITK has it.

Layouts: pages (rows, columns) or (rows, columns, colours); volumes (C, X, Y, Z) with X the columns and Y the rows.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from mamba_vision.utils.atomic import atomic_path, write_json
from mamba_vision.utils.picture_depth import PICTURE_DEPTH
from mamba_vision.volumes.volume import PICTURE_ENDINGS, Volume, VolumeError
from mamba_vision.volumes.writing import smallest_type

_GREY = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_TIFF = (".tif", ".tiff")


def picture_ending(path: str | Path) -> str:
    """'.png' and the like, in lower case; '' for what is no picture that we read."""
    ending = Path(path).suffix.lower()
    return ending if ending in PICTURE_ENDINGS else ""


def lossy_cure(files: Iterable[Path]) -> str:
    """What to do about JPEG and WebP pictures among files that are not read; '' without any."""
    if not any(file.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".webp") for file in files):
        return ""
    return "JPEG and WebP are not read, as they change values: save the pictures as PNG"


def picture_shape(path: str | Path) -> tuple[int, int, int, int]:
    """(C, X, Y, Z) from the header. Raises VolumeError: no such file, or no picture."""
    with _opened(Path(path)) as image:
        colours = 3 if image.mode.startswith("RGB") else 1
        return colours, image.width, image.height, getattr(image, "n_frames", 1)


def read_picture(path: Path, label: bool = False, like: Volume | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The values (C, X, Y, Z) as they are stored, and the affine (4, 4).

    Args:
        path: the file.
        label: whether it holds class numbers: then the numbers of a palette are those, and colours are refused.
        like: the scan of a label, whose geometry it has if it is a picture too and nothing else is said.

    Raises:
        VolumeError: no such file, no picture, a damaged one, colours by a palette, transparency, or a JSON file beside
            it that holds no spacing.
    """
    try:
        with _opened(path) as image:
            pages = [_values(path, page, label) for page in ImageSequence.Iterator(image)]
    except VolumeError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        found = f"truncated or damaged ({str(error).splitlines()[0][:100]})"
        raise VolumeError(path, found, "a complete picture", "Copy or download the file again") from error
    if len({page.shape for page in pages}) > 1:
        raise VolumeError(path, "pages of several sizes", "pages of one size", "Save each as its own file")
    array = np.stack(pages, axis=-1)  # (rows, columns, C, pages)
    array = np.ascontiguousarray(array.transpose(2, 1, 0, 3))
    size = _spacing(path) if len(pages) > 1 else (1.0, 1.0, PICTURE_DEPTH)
    if size is None and like is not None and like.shape == array.shape[1:] and picture_ending(like.name):
        return array, like.affine
    x, y, z = size or (1.0, 1.0, 1.0)
    return array, np.diag([-x, -y, z, 1.0])


def write_picture_labels(
    path: str | Path, labels: np.ndarray, like: Volume, names: Mapping[str, int] | None = None
) -> Path:
    """Write class numbers (X, Y, Z) as a grey picture of the scan's size, atomically; several slices as TIFF's pages.

    `names` has no place in a picture.

    Raises:
        ValueError: labels of another shape than the scan's, or no integers.
        VolumeError: an ending that is none of a picture, or of one that cannot hold so many slices or values.
    """
    path, labels = Path(path), np.asarray(labels)
    if labels.dtype.kind not in "iub" or labels.shape != tuple(like.shape):
        raise ValueError(f"labels: expected integers of shape {tuple(like.shape)}, found {labels.dtype} {labels.shape}")
    ending = picture_ending(path)
    if not ending:
        raise VolumeError(path, "a name without a known ending", " or ".join(PICTURE_ENDINGS))
    kind = smallest_type(labels)
    if kind not in (np.uint8, np.uint16) or (ending == ".bmp" and kind is not np.uint8):
        most = 255 if ending == ".bmp" else 65535
        raise VolumeError(path, f"labels from {labels.min()} to {labels.max()}", f"labels from 0 to {most}")
    if labels.shape[2] > 1 and ending not in _TIFF:
        raise VolumeError(path, f"{labels.shape[2]} slices", "a TIFF, or a format of volumes such as nii.gz")
    pages = [Image.fromarray(np.ascontiguousarray(page.T)) for page in np.moveaxis(labels.astype(kind), 2, 0)]
    options = {"compression": "tiff_deflate"} if ending in _TIFF else {}
    if len(pages) > 1:
        options |= {"save_all": True, "append_images": pages[1:]}
        if not np.allclose(like.spacing, 1):
            write_json(path.with_suffix(".json"), {"spacing": list(like.spacing[::-1])})
    with atomic_path(path) as temporary:
        pages[0].save(temporary, format="TIFF" if ending in _TIFF else ending[1:].upper(), **options)
    return path


def _opened(path: Path) -> Image.Image:
    if not path.is_file():
        raise VolumeError(path, "a folder" if path.is_dir() else "no such file", "a picture")
    try:
        return Image.open(path, formats=("PNG", "BMP", "TIFF"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        found = "an empty file" if path.stat().st_size == 0 else f"is no picture ({type(error).__name__})"
        raise VolumeError(path, found, "a PNG, BMP or TIFF file") from error


def _values(path: Path, page: Image.Image, label: bool) -> np.ndarray:
    """(rows, columns, C)."""
    mode, stored = page.mode, str(page.tile[0][3]) if page.tile else ""
    if mode in _GREY or (label and mode == "P"):
        values = np.array(page)
        return values.astype(np.uint8 if values.dtype == bool else values.dtype)[..., None]
    if label:
        raise VolumeError(path, f"colours ({mode})", "class numbers", "Save 0, 1, 2, ... as a grey picture")
    if mode not in ("RGB", "RGBA", "LA"):
        found = "colours by a palette" if mode == "P" else f"pixels of kind {mode}"
        raise VolumeError(path, found, "a grey or RGB picture", "Convert it to RGB")
    if "16" in stored:
        cure = "Save each colour as a grey picture of its own, CASE_0000, CASE_0001, CASE_0002"
        raise VolumeError(path, f"16 bits a colour ({mode})", "8 bits a colour", cure)
    values = np.array(page)
    if mode == "RGB":
        return values
    if (values[..., -1] != 255).any():
        raise VolumeError(path, "transparent pixels", "an opaque picture", "Save it without its alpha channel")
    return values[..., :-1]


def _spacing(path: Path) -> tuple[float, float, float] | None:
    """Voxel size along X, Y, Z from the JSON file beside the picture, or None without one."""
    names = dict.fromkeys((path.stem, re.sub(r"_\d{4}$", "", path.stem)))
    file = next((found for name in names if (found := path.with_name(f"{name}.json")).is_file()), None)
    if file is None:
        return None
    try:
        z, y, x = map(float, json.loads(file.read_text(encoding="utf-8"))["spacing"])
        if min(x, y, z) > 0:
            return x, y, z
        found = f"spacing {[z, y, x]}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"no spacing ({type(error).__name__})"
    raise VolumeError(file, found, '{"spacing": [z, y, x]}, three sizes above 0')
