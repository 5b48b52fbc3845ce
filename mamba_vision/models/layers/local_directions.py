"""Which directions LocalMamba scans in, layer by layer: as published, or as a config gives them (arXiv 2403.09338)."""

from collections.abc import Mapping, Sequence
from typing import Any

UNSEARCHED = "h h_flip w2 w2_flip"  # what the authors put in every layer where they did not search

# Found by the authors' search on ImageNet-1k; a line is a layer. The order within a line is that of the layer's
# parameters.
SEARCHED = {
    "local_vim": """
        h v_flip w7 w7_flip
        h_flip w2_flip w7 w7_flip
        h h_flip v w7
        h h_flip v v_flip
        h h_flip v v_flip
        h h_flip v v_flip
        h_flip v v_flip w7
        h_flip v v_flip w2_flip
        h h_flip v v_flip
        h h_flip v v_flip
        h v v_flip w2
        h v v_flip w2_flip
        h h_flip v_flip w7
        h_flip v v_flip w2
        h h_flip v v_flip
        h v w2 w2_flip
        v v_flip w2 w7
        h h_flip v w2
        h h_flip w2_flip w7
        v v_flip w2 w2_flip""",
    "local_vmamba_tiny": """
        h h_flip w7 w7_flip
        h_flip v_flip w2 w2_flip
        h_flip v_flip w2_flip w7
        h_flip v v_flip w2
        h h_flip v_flip w2_flip
        h_flip v_flip w2 w2_flip
        h w2_flip w7 w7_flip
        h h_flip v v_flip
        h v_flip w7 w7_flip
        h_flip v w2 w7_flip
        v v_flip w2 w7_flip
        h h_flip v_flip w2_flip
        v_flip w2_flip w7 w7_flip
        h_flip v_flip w2_flip w7_flip
        h_flip v w7 w7_flip""",
    "local_vmamba_small": """
        h v v_flip w7_flip
        h h_flip v w7
        h_flip v v_flip w7
        h_flip v w2_flip w7
        h_flip v w2_flip w7
        h_flip v_flip w2 w7_flip
        h_flip v v_flip w7
        h v v_flip w7
        h v v_flip w7
        h v v_flip w7_flip
        h h_flip v v_flip
        h v v_flip w2
        v v_flip w2_flip w7
        h h_flip v w2
        h_flip v v_flip w7_flip
        h h_flip v v_flip
        h v v_flip w7_flip
        h v v_flip w7_flip
        h h_flip v_flip w7
        h_flip v_flip w2_flip w7
        h_flip v v_flip w7_flip
        v v_flip w7 w7_flip
        h v v_flip w7_flip
        h_flip v v_flip w2
        h v v_flip w2_flip
        h h_flip v w7
        h h_flip w7 w7_flip
        h v_flip w2 w2_flip
        h v_flip w2 w7
        h v v_flip w7_flip
        h_flip v w2_flip w7
        h_flip v_flip w7 w7_flip
        h v w7 w7_flip""",
}  # fmt: skip

Directions = str | Sequence[str | Sequence[str]] | None


def directions_by_layer(directions: Directions, layers: int) -> list[tuple[str, ...]]:
    """The directions of every layer.

    Args:
        directions: a name of `SEARCHED`; one text for every layer, 'h h_flip w2 w2_flip'; a list with a text or a list
            of names for each layer; None: `UNSEARCHED`.
        layers: how many layers there are.

    Raises:
        ValueError: a list, or a published table, for another number of layers.
    """
    found = UNSEARCHED if directions is None else directions
    if isinstance(found, str):
        found = SEARCHED[found].strip().split("\n") if found in SEARCHED else [found] * layers
    found = [tuple(line.split()) if isinstance(line, str) else tuple(line) for line in found]
    if len(found) != layers:
        named = repr(directions) if isinstance(directions, str) else "a list"
        raise ValueError(f"directions: found {named} for {len(found)} layers, expected {layers}")
    return found


def layer_scans(
    settings: Mapping[str, Any],
    layers: int,
    directions: Directions,
    search: bool | None,
    candidates: Sequence[str],
    scan: Mapping[str, Any] | str | None,
    **local: bool,
) -> list[dict[str, Any]]:
    """The mixer options `scan` and `search` of every layer of a LocalMamba network.

    Args:
        settings: `directions` and `search` of the network: what was given, or its arch's.
        layers: how many layers there are.
        directions, search, scan: as given beside the arch; at most one of them.
        candidates: directions that a supernet chooses from.
        local: options of the scan order 'local'.

    Raises:
        ValueError: as `directions_by_layer`, or more than one was given.
    """
    given = {"directions": directions is not None, "search": bool(search), "scan": scan is not None}
    if sum(given.values()) > 1:
        both = " and ".join(name for name, is_given in given.items() if is_given)
        raise ValueError(f"{both}: found both, expected one of directions, search=True and scan")
    if scan is not None:
        return [{"scan": scan}] * layers
    searching = search or (search is None and directions is None and settings["search"])
    chosen = [tuple(candidates)] * layers if searching else directions_by_layer(settings["directions"], layers)
    return [{"scan": {"type": "local", "directions": names, **local}, "search": searching} for names in chosen]
