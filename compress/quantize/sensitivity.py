"""What each layer's rounding does alone: the layer in INT8, everything else in float, against the float network's outputs.

One figure a layer, on inputs of the selection set, with ranges and weights of the INT8 model as it is: nothing is calibrated
again, so a layer costs one compilation and a few runs. Where that is too many, neighbours are taken together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from rsedge.data.record import Record

SAY_EVERY = 10.0
"""Seconds between two lines on how far it is."""


@dataclass(frozen=True)
class Probe:
    """What a runtime lets be measured of an INT8 model.

    Attributes:
        layers: that compute in 8 bits, in the order in which they run.
        damage: RMS difference of outputs from the float network's, over their standard deviation, with only these layers rounded.
        inputs: on how many inputs.
    """

    layers: tuple[str, ...]
    damage: Callable[[Sequence[str]], float]
    inputs: int


class LayerDamage(Record):
    """A layer, or neighbours that were taken together."""

    layers: tuple[str, ...]
    damage: float = Field(
        description="RMS difference of outputs over their standard deviation, with these alone in INT8"
    )


class Sensitivity(Record):
    """All layers in the order in which they run."""

    parts: tuple[LayerDamage, ...]
    together: float = Field(description="damage with all of them in INT8")
    inputs: int
    seconds: float

    def worst_first(self) -> list[tuple[str, ...]]:
        """Layers by falling damage."""
        return [part.layers for part in sorted(self.parts, key=lambda part: -part.damage)]

    def words(self) -> str:
        """The worst, in words."""
        worst = max(self.parts, key=lambda part: part.damage)
        return f"most is lost in {worst.layers[0]} (alone {worst.damage:.4f} of all layers' {self.together:.4f})"


def sensitivity(
    probe: Probe, most: int, seconds: float, say: Callable[[str], None] = lambda _: None
) -> Sensitivity | None:
    """Measures each layer alone; None where no layer is in 8 bits.

    Args:
        most: figures at most.
        seconds: about so long; where the first figures show that it takes longer, neighbours are taken together.
    """
    if not probe.layers or not most:
        return None
    started = time.perf_counter()
    together = probe.damage(probe.layers)
    affordable = int(seconds / max(time.perf_counter() - started, 1e-9))
    groups = list(neighbours(probe.layers, min(most, max(1, affordable))))
    parts: list[LayerDamage] = []
    begun = last = time.perf_counter()
    for group in groups:
        parts.append(LayerDamage(layers=group, damage=probe.damage(group)))
        now = time.perf_counter()
        if now - last > SAY_EVERY:
            last, left = now, (now - begun) / len(parts) * (len(groups) - len(parts))
            say(f"damage of each layer alone, {len(parts)} of {len(groups)}: about {left:.0f} s left")
    return Sensitivity(
        parts=tuple(parts), together=together, inputs=probe.inputs, seconds=time.perf_counter() - started
    )


def neighbours(layers: Sequence[str], count: int) -> Iterator[tuple[str, ...]]:
    """Neighbouring layers in up to ``count`` groups of nearly the same size."""
    count = min(count, len(layers))
    for i in range(count):
        yield tuple(layers[i * len(layers) // count : (i + 1) * len(layers) // count])
