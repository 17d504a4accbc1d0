"""What a LiteRT model file says: a flatbuffer, read and written by the classes that come with ``ai-edge-litert``.

Its metadata are named buffers; the band contract is one of them, as it is a metadata entry of an ONNX file.

Travels with the runner: Python 3.8, NumPy and the device's own LiteRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAGIC = b"TFL3"
_START = 1 << 16


def is_litert(content: bytes) -> bool:
    """Whether the bytes call themselves a LiteRT model."""
    return content[4:8] == MAGIC


def read_model(content: bytes) -> Any:
    """The model as objects (``ModelT``); weights that a tool put behind the flatbuffer are in it again.

    For bytes of our own making: nothing verifies them.

    Raises:
        ModuleNotFoundError: ai-edge-litert is not installed.
    """
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write_model(model: Any) -> bytes:
    """The bytes of a model; the same model gives the same bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(_START)
    builder.Finish(model.Pack(builder), MAGIC)
    return bytes(builder.Output())


def kind_of(model: Any, operator: Any) -> str:
    """Name of an operation, e.g. ``CONV_2D``."""
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex]
    return _names(schema)[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _names(schema: Any) -> dict[int, str]:
    return {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def metadata(content: bytes) -> dict[str, bytes]:
    """Name -> value of the metadata of verified bytes.

    Raises:
        ValueError: they point out of the file.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    found = {}
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Buffer() >= model.BuffersLength():
            raise ValueError(f"metadata lie in buffer {entry.Buffer()} of {model.BuffersLength()}")
        buffer = model.Buffers(entry.Buffer())
        name = (entry.Name() or b"").decode("utf-8", "replace")
        found[name] = bytes(buffer.DataAsNumpy()) if buffer.DataLength() else b""
    return found


def set_metadata(model: Any, values: Mapping[str, bytes]) -> None:
    """Adds metadata to a model, or replaces those of the same name."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model.metadata = [entry for entry in model.metadata or [] if entry.name.decode() not in values]
    for name, value in values.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(value, np.uint8)
        entry.name, entry.buffer = name.encode(), len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)


def outside_data(content: bytes) -> bool:
    """Whether a verified model keeps weights in other files, or behind the flatbuffer, where no verifier looks."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    if model.ExternalBuffersLength() or model.ExternalBufferGroupsLength():
        return True
    return any(model.Buffers(number).Offset() > 1 for number in range(model.BuffersLength()))
