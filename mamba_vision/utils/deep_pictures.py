"""What neither Pillow nor OpenCV does for pictures of 16 bits a channel: color profiles, and a TIFF's orientation."""

import struct
import zlib
from dataclasses import dataclass

_ORIENTATION, _PROFILE = 0x0112, 0x8773  # TIFF's numbers
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_SPACES = {b"GRAY": 1, b"RGB ": 3}


@dataclass(frozen=True)
class TiffTags:
    """The tags of the first image of a TIFF file.

    Attributes:
        order: of bytes, '<' or '>'.
        start: where they begin in the file, with their number.
        entries: number of a tag to its place in the file: number, type, count, and the value or its place.
    """

    order: str
    start: int
    entries: dict[int, int]


def tiff_tags(content: bytes) -> TiffTags | None:
    """The tags; None of another file, or a damaged one."""
    if (order := _ORDERS.get(content[:4])) is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        places = [start + 2 + 12 * i for i in range(count)]
        entries = {struct.unpack_from(f"{order}H8xI", content, place)[0]: place for place in places}
    except struct.error:
        return None
    return TiffTags(order, start, entries)


def tiff_head(content: bytes) -> tuple[int, bytes | None] | None:
    """Orientation (1: upright) and color profile of a TIFF file; None of another one."""
    tags = tiff_tags(content)
    if tags is None:
        return None
    orientation, profile = 1, None
    if place := tags.entries.get(_ORIENTATION):
        (orientation,) = struct.unpack_from(f"{tags.order}H", content, place + 8)
    if place := tags.entries.get(_PROFILE):
        length, where = struct.unpack_from(f"{tags.order}II", content, place + 4)
        profile = content[where : where + length]
    return orientation, profile


def as_stored(content: bytes) -> bytes:
    """A file that OpenCV decodes as its pixels are stored: it turns TIFF files, in some releases not all of them."""
    tags = tiff_tags(content)
    if tags is None or _ORIENTATION not in tags.entries:
        return content
    changed = bytearray(content)
    struct.pack_into(f"{tags.order}H", changed, tags.entries[_ORIENTATION] + 8, 1)
    return bytes(changed)


def profile_for(profile: bytes | None, channels: int) -> bytes | None:
    """A color profile if it is one for pictures of 1 (gray) or 3 (RGB) channels: a CMYK file's is not, once read."""
    return profile if profile and _SPACES.get(profile[16:20]) == channels else None


def with_profile(content: bytes, profile: bytes, suffix: str) -> bytes:
    """A PNG or TIFF file, as OpenCV encodes them, with a color profile."""
    return _png(content, profile) if suffix == ".png" else _tiff(content, profile)


def _png(content: bytes, profile: bytes) -> bytes:
    """A chunk iCCP behind the head: name, zero, compression method 0, compressed profile."""
    head = 8 + 25  # signature, and IHDR with its length, name and checksum
    chunk = b"iCCP" + b"ICC profile\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:head] + chunk + content[head:]


def _tiff(content: bytes, profile: bytes) -> bytes:
    """The profile, and the tags with one more, in rising order, behind the old content."""
    tags = tiff_tags(content)
    order, undefined = tags.order, 7
    content += bytes(-len(content) % 2)
    known = {number: content[place : place + 12] for number, place in tags.entries.items()}
    known[_PROFILE] = struct.pack(f"{order}HHII", _PROFILE, undefined, len(profile), len(content))
    content += profile + bytes(-len(profile) % 2)
    directory = struct.pack(f"{order}H", len(known)) + b"".join(known[number] for number in sorted(known)) + bytes(4)
    return content[:4] + struct.pack(f"{order}I", len(content)) + content[8:] + directory
