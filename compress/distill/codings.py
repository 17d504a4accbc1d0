"""How a teacher's outputs are kept: in half precision, in single where half moves them too far, or the first of many classes alone.

Which of them is measured on some of the teacher's own answers, and the error stands with what is kept. What is computed when it is
asked for goes through the same rounding, so that a student learns the same numbers whether they were kept or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Field = tuple[str, type[np.generic] | str, tuple[int, ...]]
FARTHEST_HALF = 1e-3
"""Root mean square error of half precision, in deviations of the output, beyond which single is kept."""
FARTHEST_TOP = 1e-3
"""Mean divergence (nats) of the distribution that the first classes leave from the whole one, beyond which more are kept."""
LEAST_TOP, TOPS = 16, (2, 4, 8, 16, 32, 64)
"""Classes from which on the first alone may do, and how many of them are tried."""
HALF_MAX = 6e4
_VALUES, _INDEX, _REST = ".values", ".index", ".rest"


@dataclass(frozen=True)
class Coding:
    """How one output is kept.

    Attributes:
        kind: ``half``, ``single``, or ``top``: the ``top`` largest logits of the first axis at every place, and what the others are
            on average, in the sense of their probability.
        shape: of one view's output.
        error: measured, of ``half`` and ``single`` in deviations of the output, of ``top`` in nats.
    """

    kind: Literal["half", "single", "top"]
    shape: tuple[int, ...]
    top: int = 0
    error: float = 0.0

    def fields(self, name: str) -> list[Field]:
        """What a record of one view holds for it, as NumPy names fields."""
        if self.kind != "top":
            return [(name, np.float16 if self.kind == "half" else np.float32, self.shape)]
        places = self.shape[1:]
        number = np.uint8 if self.shape[0] <= 256 else np.uint16
        return [
            (name + _VALUES, np.float16, (self.top, *places)),
            (name + _INDEX, number, (self.top, *places)),
            (name + _REST, np.float16, places),
        ]

    def write(self, name: str, values: Floats, records: npt.NDArray[np.void]) -> None:
        """Puts an output (N, *shape) into N records."""
        if self.kind != "top":
            records[name] = np.clip(values, -HALF_MAX, HALF_MAX) if self.kind == "half" else values
            return
        largest, kept, rest = _split(values, self.top)
        records[name + _INDEX] = largest
        records[name + _VALUES] = np.clip(kept, -HALF_MAX, HALF_MAX)
        records[name + _REST] = np.clip(rest, -HALF_MAX, HALF_MAX)[:, 0]

    def read(self, name: str, records: npt.NDArray[np.void]) -> Floats:
        """The output (N, *shape) of N records: float16, or float32 where it is kept in single precision."""
        if self.kind != "top":
            return np.ascontiguousarray(records[name])
        found = np.repeat(records[name + _REST][:, None], self.shape[0], axis=1)
        np.put_along_axis(found, records[name + _INDEX].astype(np.intp), records[name + _VALUES], axis=1)
        return found

    @property
    def words(self) -> str:
        """For people."""
        if self.kind == "top":
            return f"first {self.top} of {self.shape[0]} classes, {self.error:.1g} nats off"
        return "single precision" if self.kind == "single" else f"half precision, {self.error:.1g} of its spread off"


def _split(values: Floats, top: int) -> tuple[npt.NDArray[np.intp], Floats, Floats]:
    """Numbers of the largest classes (N, top, ...), their logits, and the logit that each of the others gets (N, 1, ...)."""
    parted = np.argpartition(-values, top, axis=1)
    largest, others = parted[:, :top], np.take_along_axis(values, parted[:, top:], axis=1)
    highest = others.max(1, keepdims=True)
    rest = highest + np.log(np.exp(others - highest).mean(1, keepdims=True))
    return largest, np.take_along_axis(values, largest, axis=1), rest


def codings_for(outputs: Mapping[str, Floats], classes: bool = False, exact: bool = False) -> dict[str, Coding]:
    """The smallest coding of each output whose measured error is small.

    Args:
        outputs: by name, of some views (N, ...).
        classes: whether nothing but the distribution over ``logits`` counts, softened no further than by temperature 1.
        exact: whether ``logits`` are places (boxes), which half precision would move.
    """
    return {
        name: _coding(values, classes and name == "logits", exact and name == "logits")
        for name, values in outputs.items()
    }


def _coding(values: Floats, classes: bool, exact: bool) -> Coding:
    shape = values.shape[1:]
    if classes and values.ndim > 1 and shape[0] >= LEAST_TOP:
        for top in (t for t in TOPS if t < shape[0] // 4):
            made = Coding("top", shape, top)
            if (error := _divergence(values, _through(made, values))) <= FARTHEST_TOP:
                return Coding("top", shape, top, error)
    spread = float(values.std()) or 1.0
    error = (
        float(np.sqrt(np.square(_through(Coding("half", shape), values) - values.astype(np.float64)).mean())) / spread
    )
    return Coding("single", shape) if exact or error > FARTHEST_HALF else Coding("half", shape, error=error)


def _through(coding: Coding, values: Floats) -> npt.NDArray[np.float64]:
    records = np.zeros(len(values), record_of({"logits": coding}))
    coding.write("logits", values, records)
    return coding.read("logits", records).astype(np.float64)


def _divergence(whole: Floats, kept: Floats) -> float:
    """Mean over places of KL(whole, kept), nats; classes along the first axis of a view."""
    p, q = (_log_softmax(v.astype(np.float64)) for v in (whole, kept))
    return float((np.exp(p) * (p - q)).sum(1).mean())


def _log_softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    moved = values - values.max(1, keepdims=True)
    return moved - np.log(np.exp(moved).sum(1, keepdims=True))


def record_of(codings: Mapping[str, Coding], *first: Field) -> np.dtype[Any]:
    """What is kept of one view: some fields, and every output's."""
    return np.dtype([*first, *(field for name, coding in codings.items() for field in coding.fields(name))])
