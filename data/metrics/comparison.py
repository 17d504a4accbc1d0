"""What outputs are held against, as metrics take it. A module of metrics brings the comparisons that its figures need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Compared = Literal[
    "map",
    "classes",
    "yes or no",
    "labels",
    "values",
    "boxes",
    "image",
    "texts",
    "pairs",
    "teacher classes",
    "teacher labels",
    "teacher values",
    "teacher vectors",
    "teacher tokens",
    "teacher boxes",
    "teacher image",
    "teacher words",
    "teacher part",
    "teacher masks",
    "teacher ranks",
]
"""Kinds of comparisons: against labels (of pixels or of whole samples: one class, a yes or no, several labels, numbers; boxes, an
image, texts, the item that belongs to each query), and against what the teacher gives."""


@dataclass(frozen=True)
class Comparison:
    """A network's outputs on some inputs beside what they are held against, unit by unit.

    Attributes:
        kind: by which a row of :data:`rsedge.data.metrics.table.METRICS` says that it takes this.
    """

    kind: Compared

    @property
    def details(self) -> dict[str, Any]:
        """What a record holds beside the figures of metrics."""
        return {}
