"""Whether an ONNX model keeps weights in other files, which nobody hashes with it; told from its bytes alone.

A runtime that is handed such a model in memory looks for those files where the process happens to stand, or at any path that the
model names (OpenVINO 2026.4 does). The walk is over protobuf's wire format, through all messages that tensors lie in.

Travels with the runner: Python 3.8, nothing imported.
"""

from __future__ import annotations

from typing import Dict, Iterator, Tuple  # noqa: UP035 - Python 3.8 cannot index the other ones

_EXTERNAL, _LOCATION = 13, 14
_TAG = (1 << 32) - 1
"""Of a tag that is written longer, protobuf drops what is above."""
_INSIDE: Dict[str, Dict[int, str]] = {  # noqa: UP006
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Kind of message -> its fields that hold tensors, or messages with tensors in them, by their numbers in ``onnx.proto``."""


def external_data(content: bytes) -> bool:
    """Whether a tensor of the model lies in another file; what is no ONNX has none."""
    waiting = [("model", 0, len(content))]
    while waiting:
        kind, start, end = waiting.pop()
        for field, wire, at, stop in _fields(content, start, end):
            if kind == "tensor":
                if field == _EXTERNAL or (field == _LOCATION and wire == 0 and stop - at):
                    return True
                continue
            inner = _INSIDE[kind].get(field)
            if inner is not None and wire == 2:
                waiting.append((inner, at, stop))
    return False


def _fields(content: bytes, at: int, end: int) -> Iterator[Tuple[int, int, int, int]]:  # noqa: UP006
    """Number, wire type and place of each field of a message; for varints the place is as long as the value. Ends where the
    bytes are none."""
    while at < end:
        tag, at = _varint(content, at, end)
        field, wire = (tag & _TAG) >> 3, tag & 7
        if wire == 0:
            value, at = _varint(content, at, end)
            yield field, wire, at, at + value
        elif wire == 2:
            size, at = _varint(content, at, end)
            if at + size > end:
                return
            yield field, wire, at, at + size
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire not in (3, 4):  # groups: their fields are looked at as if they were the message's own
            return


def _varint(content: bytes, at: int, end: int) -> Tuple[int, int]:  # noqa: UP006
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at
