"""ZigMa's scan families: the published names of `scan_type`, and the order that every layer takes."""

import re

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders import ScanOrder

FAMILIES = "'v1', 'v2', 'zigzagN1' .. 'zigzagN8', 'hilbertN1' .. 'hilbertN8', 'randomN<n>' or 'zzvideo_<letters s, t>'"
_PATHS = re.compile(r"(zigzag|hilbert|random)N(\d+)")
_VIDEO = re.compile(r"(?:zz)?video_([st]+)")  # the first public release had no 'zz'


def layer_orders(scan_type: str, layers: int, seed: int = 0, as_published: bool = True) -> list[ScanOrder]:
    """The scan order of each layer.

    Args:
        scan_type: 'v2' scans forward and backward in every layer (sweep-2), 'v1' forward only (sweep-1);
            'zigzagN8' takes the first 8 zigzag paths in turn, a layer one path, and so do 'hilbertN<n>' and
            'randomN<n>'; 'zzvideo_sst' scans frames in layers 's' and along time in layers 't'.
        layers: their number.
        seed: of the random paths.
        as_published: take Hilbert tables for their inverses, and return what layers along time say mirrored in time,
            as published weights want it.

    Raises:
        ValueError: another scan type.
    """
    if scan_type in ("v1", "v2"):
        order = SCAN_ORDERS.build("raster" if scan_type == "v1" else "bidirectional")
        return [order] * layers
    if found := _PATHS.fullmatch(scan_type):
        family, count = found[1], int(found[2])
        if count >= 1 and (family == "random" or count <= 8):
            options = {"zigzag": {}, "hilbert": {"along_curve": not as_published}, "random": {"seed": seed}}[family]
            key = "paths" if family == "random" else "schemes"
            cycle = [SCAN_ORDERS.build({"type": family, key: (path,), **options}) for path in range(count)]
            return [cycle[layer % count] for layer in range(layers)]
    if (found := _VIDEO.fullmatch(scan_type)) and set(found[1]) == {"s", "t"}:
        options = {"type": "zzvideo", "order": found[1], "turn_back": not as_published}
        return [SCAN_ORDERS.build({**options, "layer": layer}) for layer in range(layers)]
    if scan_type.startswith("parallelN"):
        raise ValueError(
            f"scan_type: {scan_type!r} was published without a forward pass; several zigzag paths side by side are "
            "scan=dict(type='zigzag', schemes=(0, 1))"
        )
    raise ValueError(f"scan_type: found {scan_type!r}, expected {FAMILIES}")
