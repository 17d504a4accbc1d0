"""The precisions that targets have, one record each: read by schema, export, verification and report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError

Graph = Literal["f32", "half", "quantized"]
"""Which of the student's graphs a precision runs: the f32 one, the one with fp16 weights, or the quantized one."""


@dataclass(frozen=True)
class Precision:
    """One precision.

    Attributes:
        bits: of a weight as it is computed with.
        graph: the student's graph that it runs.
        share: largest difference of a golden vector's logits, as a share of the largest logit.
        agreement: least agreement of a golden vector's classes.
    """

    name: str
    bits: int
    title: str
    graph: Graph
    share: float
    agreement: float

    @property
    def quantized(self) -> bool:
        """Whether the quantize stage makes its files."""
        return self.graph == "quantized"

    @property
    def made_by(self) -> str:
        """The stage that writes its files."""
        return "quantize" if self.quantized else "export"

    @property
    def stem(self) -> str:
        """Name of its file, before the suffix, where runtimes share one."""
        return {"f32": "student-f32", "half": "student-fp16", "quantized": "student-int8"}[self.graph]

    @property
    def on_cpu(self) -> str:
        """The precision in which this machine's CPU runs its graph, where it stands in for a device that is not here."""
        return "int8" if self.quantized else "f32"


PRECISIONS: dict[str, Precision] = {
    made.name: made
    for made in (
        Precision("f32", 32, "32-bit floats", "f32", 1e-3, 0.999),
        Precision("bf16", 16, "bfloat16 arithmetic on f32 weights", "f32", 5e-2, 0.99),
        Precision("fp16", 16, "16-bit floats", "half", 2e-2, 0.995),
        # Wide, because processors without VNNI round their sums otherwise; a broken file differs by far more.
        Precision("int8", 8, "8-bit integers, by post-training quantization or training", "quantized", 0.15, 0.98),
    )
}
"""By name, from the most bits to the least."""


def precision(name: str) -> Precision:
    """The record of a precision.

    Raises:
        RequestError: there is none of that name; says the nearest and all that there are.
    """
    if name not in PRECISIONS:
        hint = nearest(name, list(PRECISIONS))
        raise RequestError(f"unknown precision '{name}'{hint}; choose one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def _known(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"'{name}' is no precision{nearest(name, list(PRECISIONS))}; known: {', '.join(PRECISIONS)}")
    return name


PrecisionName = Annotated[str, AfterValidator(_known)]
"""The name of a precision, checked where pydantic reads it."""
