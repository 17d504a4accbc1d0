"""What the graph of a model file holds: the types of its weights, and whether it computes on rounded values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rsedge.runtimes.precision import precision as precision_of

# Types as ONNX and OpenVINO call them; the others (shapes, masks, biases of integer products) say nothing of a precision.
NAMES = {
    "float": "f32", "f32": "f32", "double": "f64", "f64": "f64",
    "float16": "fp16", "f16": "fp16", "bfloat16": "bf16", "bf16": "bf16",
    "int8": "int8", "uint8": "int8", "i8": "int8", "u8": "int8", "int4": "int4", "uint4": "int4", "i4": "int4", "u4": "int4",
    "nf4": "int4",
}  # fmt: skip
ROUNDED = ("int8", "int4")
QUANTIZING = frozenset({
    "QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "FakeQuantize",
})  # fmt: skip
"""Operations that round values, or compute on rounded ones."""
_SHOWN = 0.005


@dataclass(frozen=True)
class GraphTypes:
    """``weights``: elements by type, named as in :data:`NAMES`. ``quantized``: whether values are rounded between layers."""

    weights: Mapping[str, int]
    quantized: bool

    @property
    def rounded_weights(self) -> bool:
        """Whether most of its weights are stored in eight bits or fewer."""
        return 2 * sum(self.weights.get(name, 0) for name in ROUNDED) > sum(self.weights.values())

    @property
    def precision(self) -> str:
        """The precision of the target that it is for on a CPU: what it holds in fp16 is computed in f32 there."""
        return "int8" if self.quantized or self.rounded_weights else "f32"

    def fits(self, precision: str) -> bool:
        """Whether a target of that precision tells what it is: INT8 needs rounded values or weights, the others whole values."""
        return self.quantized or self.rounded_weights if precision_of(precision).quantized else not self.quantized

    @property
    def words(self) -> str:
        """E.g. ``quantized graph, weights int8 98 %, f32 2 %``."""
        graph, whole = "quantized graph" if self.quantized else "float graph", sum(self.weights.values())
        shares = sorted(((count / whole, name) for name, count in self.weights.items() if count), reverse=True)
        if not shares:
            return f"{graph} without weights"
        if len(shares) == 1 or shares[1][0] < _SHOWN:
            return f"{graph}, weights {shares[0][1]}"
        return f"{graph}, weights " + ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= _SHOWN)


def weight_types(tensors: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Elements by type, of (type as the format calls it, elements) of each tensor."""
    found: dict[str, int] = {}
    for kind, count in tensors:
        if kind in NAMES:
            found[NAMES[kind]] = found.get(NAMES[kind], 0) + count
    return found
