"""The tiny model of :mod:`tests.runtimes.tiny_models` as a LiteRT file, written operation by operation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.runtimes.litert.flatbuffer import set_metadata, write_model

_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "bool": 6}


class _Builder:
    """A graph under construction; tensors are known by their numbers."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.description = 3, b"tiny"
        self.model.buffers, self.model.operatorCodes, self.model.metadata = [schema.BufferT()], [], []
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], b"main"
        self.model.subgraphs = [self.graph]

    def tensor(self, name: str, dtype: str, shape: tuple[int, ...], buffer: int = 0) -> int:
        made = self.schema.TensorT()
        made.name, made.type, made.shape, made.buffer, made.hasRank = (
            name.encode(),
            _TYPES[dtype],
            list(shape),
            buffer,
            True,
        )
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, value: np.ndarray) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self.tensor(name, value.dtype.name, value.shape, len(self.model.buffers) - 1)

    def add(self, kind: str, inputs: list[int], output: int, options: str | None = None, **values: Any) -> int:
        """An operation; ``options``: the schema's name of what it is told beside its inputs, e.g. ``CastOptions``."""
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.operatorCodes) - 1, inputs, [output]
        if options is not None:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            made.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in values.items():
                setattr(made.builtinOptions, name, value)
        self.graph.operators.append(made)
        return output

    def signature(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        made = self.schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = b"rsedge", 0
        for names, attribute in ((inputs, "inputs"), (outputs, "outputs")):
            entries = []
            for name, number in names.items():
                entry = self.schema.TensorMapT()
                entry.name, entry.tensorIndex = name.encode(), number
                entries.append(entry)
            setattr(made, attribute, entries)
        self.graph.inputs, self.graph.outputs = list(inputs.values()), list(outputs.values())
        self.model.signatureDefs = [made]


def model(contract: InputSpec, weights: np.ndarray, names: tuple[str, str, str] = ("dn", "logits", "valid")) -> Any:
    """``dn`` [1, C, T, T] float32 -> ``logits``, ``valid``: normalisation, masking and a 1x1 convolution, channels last inside."""
    c, t, k = contract.channels, contract.tile, len(weights)
    gain = (contract.vector("scale") / contract.vector("std")).reshape(1, c, 1, 1)
    shift = ((contract.vector("offset") - contract.vector("mean")) / contract.vector("std")).reshape(1, c, 1, 1)
    b = _Builder()
    image, plane = (1, c, t, t), (1, 1, t, t)
    dn = b.tensor("dn", "float32", image)
    missing = b.constant("missing", np.float32(contract.nodata or 0.0).reshape(1))
    seen = b.add("NOT_EQUAL", [dn, missing], b.tensor("seen", "bool", image))
    asked = {"inDataType": _TYPES["bool"], "outDataType": _TYPES["float32"]}
    seen = b.add("CAST", [seen], b.tensor("seen_f", "float32", image), "CastOptions", **asked)
    axis = b.constant("axis", np.array([1], np.int32))
    mask = b.add("REDUCE_MAX", [seen, axis], b.tensor("mask", "float32", plane), "ReducerOptions", keepDims=True)
    x = b.add("MUL", [dn, b.constant("gain", gain)], b.tensor("scaled", "float32", image), "MulOptions")
    x = b.add("ADD", [x, b.constant("shift", shift)], b.tensor("normal", "float32", image), "AddOptions")
    x = b.add("MUL", [x, mask], b.tensor("masked", "float32", image), "MulOptions")
    last = b.constant("last", np.array([0, 2, 3, 1], np.int32))
    x = b.add("TRANSPOSE", [x, last], b.tensor("last_in", "float32", (1, t, t, c)), "TransposeOptions")
    filters = b.constant("w", np.ascontiguousarray(weights.reshape(k, 1, 1, c)))
    bias = b.constant("b", np.zeros(k, np.float32))
    x = b.add("CONV_2D", [x, filters, bias], b.tensor("conv", "float32", (1, t, t, k)), "Conv2DOptions", padding=1,
              strideH=1, strideW=1)  # fmt: skip
    first = b.constant("first", np.array([0, 3, 1, 2], np.int32))
    logits = b.add("TRANSPOSE", [x, first], b.tensor("logits", "float32", (1, k, t, t)), "TransposeOptions")
    asked = {"inDataType": _TYPES["float32"], "outDataType": _TYPES["uint8"]}
    flat = b.add("CAST", [mask], b.tensor("mask_u8", "uint8", plane), "CastOptions", **asked)
    shape = b.constant("shape", np.array([1, t, t], np.int32))
    valid = b.add("RESHAPE", [flat, shape], b.tensor("valid", "uint8", (1, t, t)), "ReshapeOptions")
    b.signature({names[0]: dn}, {names[1]: logits, names[2]: valid})
    return b.model


def make_litert(path: Path, contract: InputSpec, weights: np.ndarray, with_spec: bool = True) -> Path:
    """Writes the model."""
    made = model(contract, weights)
    if with_spec:
        set_metadata(made, {"rsedge": contract.model_dump_json().encode()})
    path.write_bytes(write_model(made))
    return path
