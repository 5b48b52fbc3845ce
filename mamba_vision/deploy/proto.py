"""A look into ONNX files without the package onnx: whether the file is whole, and keeps all its data to itself.

Tensors may lie in other files, which a model names by any path. What we write never does, and a file from somebody else
that names one is refused before a runtime sees it.
"""

# Fields that lead from a ModelProto to tensors, by message: {field number: message}.
_FIELDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_DEPTH = 64  # of nested messages; a graph in a graph takes three


class BrokenFileError(ValueError):
    """Bytes that are no ONNX model, or one that is not complete in itself."""


def check_bytes(content: bytes) -> None:
    """Raise BrokenFileError for bytes that are no protocol buffer of a model, or refer to other files."""
    graphs = _walk(memoryview(content), "model", 0)
    if not graphs:
        raise BrokenFileError("no graph in it")


def _walk(data: memoryview, message: str, depth: int) -> int:
    """Go through one message and those in it; how many graphs it has directly."""
    if depth > _DEPTH:
        raise BrokenFileError("messages nested too deeply")
    inner, place, graphs = _FIELDS[message], 0, 0
    while place < len(data):
        key, place = _number(data, place)
        field, kind = key >> 3, key & 7
        if field == 0:
            raise BrokenFileError("a field without a number")
        if kind == 0:
            value, place = _number(data, place)
            if message == "tensor" and field == _DATA_LOCATION and value == 1:
                raise BrokenFileError("a tensor that lies in another file")
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            size, place = _number(data, place)
            if place + size > len(data):
                raise BrokenFileError("it ends in the middle of a field")
            if message == "tensor" and field == _EXTERNAL_DATA:
                raise BrokenFileError("a tensor that lies in another file")
            if field in inner:
                graphs += inner[field] == "graph"
                _walk(data[place : place + size], inner[field], depth + 1)
            place += size
        else:
            raise BrokenFileError(f"a field of unknown kind {kind}")
    if place != len(data):
        raise BrokenFileError("it ends in the middle of a field")
    return graphs


def _number(data: memoryview, place: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise BrokenFileError("it ends in the middle of a number")
