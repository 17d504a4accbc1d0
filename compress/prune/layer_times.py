"""How long each layer of a network takes at each of its widths: the table that pruning towards a latency goes by.

Layers are timed alone, each shape once, at their full width and at shares of it; between these a layer's time is interpolated over
its products. What a whole network takes beyond its layers (norms, copies, sums) goes with the values that layers write. The
table plans; whether a cut pays is then measured on the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn

from rsedge.compress.prune.groups import ChannelGroup, Example
from rsedge.data.record import Record
from rsedge.models.layer_shape import LayerShape

Floats = npt.NDArray[np.float64]

SHARES = (1.0, 0.5, 0.25)
"""Of the channels on every side of a layer that can shrink; layers are timed at these widths."""
LANES = 8
"""Widths at which layers are timed are multiples of it, or the whole."""

_Conv = nn.modules.conv._ConvNd


class LayerCurve(Record):
    """Milliseconds of one layer over its products (channels in times channels out; channels alone where it is depthwise).

    ``positions`` is how many values it writes per output channel.
    """

    name: str
    positions: int
    depthwise: bool
    products: tuple[int, ...]
    ms: tuple[float, ...]


class LayerTimes(Record):
    """Curves of all layers of a network, what one inference of the whole took by the same clock (ms), and what of it each value
    that a layer writes took beside the layers (``rest_ms``). Where layers alone took more than the whole, they are scaled to it."""

    whole_ms: float = Field(gt=0)
    rest_ms: float = Field(ge=0)
    provenance: Literal["measured", "predicted"]
    curves: tuple[LayerCurve, ...]


TimeLayers = Callable[
    [nn.Module, Sequence[LayerShape]], tuple[float, Sequence[float], Literal["measured", "predicted"]]
]
"""``(network, shapes)`` -> ms of the network, ms of each shape by the same clock, and whether they are measured."""


def layer_shapes(module: nn.Module, example: Example, groups: Iterable[ChannelGroup]) -> list[tuple[str, LayerShape]]:
    """Every call of a convolution or linear layer in one forward pass, and the attention of every group of heads."""
    found: list[tuple[str, LayerShape]] = []
    handles = [
        layer.register_forward_hook(lambda m, args, out, n=name: found.append((n, _shape(m, tuple(args[0].shape)))))  # type: ignore[misc]
        for name, layer in module.named_modules()
        if isinstance(layer, _Conv | nn.Linear)
    ]
    try:
        with torch.no_grad():
            module(*example) if isinstance(example, tuple) else module(example)
    finally:
        for handle in handles:
            handle.remove()
    given = dict(found)
    for group in groups:
        owner = next((m.layer.rpartition(".")[0] for m in group.members if m.side == "heads"), None)
        if owner is not None and group.name in given:
            tokens = given[group.name].input
            batch = math.prod(tokens[:-2])
            shape = (batch, group.channels, tokens[-2] if len(tokens) > 1 else 1, group.unit)
            found.append((owner, LayerShape("attention", shape, group.channels)))
    return found


def _shape(layer: nn.Module, given: tuple[int, ...]) -> LayerShape:
    if isinstance(layer, nn.Linear):
        return LayerShape("linear", given, layer.out_features)
    assert isinstance(layer, _Conv)
    padding: Any = layer.padding
    if isinstance(padding, str):  # "valid", or "same": as many as the kernel reaches beyond its middle
        reach = [d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        padding = tuple(reach) if padding == "same" else (0,) * len(reach)
    return LayerShape(
        "transposed" if layer.transposed else "conv", given, layer.out_channels, tuple(layer.kernel_size), tuple(layer.stride),
        tuple(padding), tuple(layer.dilation), layer.groups,
    )  # fmt: skip


def time_layers(module: nn.Module, example: Example, groups: Sequence[ChannelGroup], timed: TimeLayers) -> LayerTimes:
    """The table of a network: every shape is asked for once, whichever layers have it."""
    sides = _sides(groups)
    rows = [
        (name, shape, _widths(shape, *sides.get(name, (False, False))))
        for name, shape in layer_shapes(module, example, groups)
    ]
    wanted = list(dict.fromkeys(shape.resized(*w) for _, shape, widths in rows for w in widths))
    whole, each, provenance = timed(module, wanted)
    ms = dict(zip(wanted, each, strict=True))
    alone = sum(ms[shape] for _, shape, _ in rows)
    scale = min(1.0, whole / alone)
    written = sum(shape.positions * shape.out for _, shape, _ in rows)
    return LayerTimes(
        whole_ms=whole, rest_ms=(whole - alone * scale) / written, provenance=provenance,
        curves=tuple(_curve(name, shape, [(w, scale * ms[shape.resized(*w)]) for w in widths]) for name, shape, widths in rows),
    )  # fmt: skip


def _sides(groups: Iterable[ChannelGroup]) -> dict[str, tuple[bool, bool]]:
    """Layer -> whether its inputs and its outputs can shrink."""
    found: dict[str, tuple[bool, bool]] = {}
    for group in groups:
        for m in group.members if not group.blocked else ():
            if m.side == "heads":
                found[m.layer.rpartition(".")[0]] = (True, True)
                continue
            before = found.get(m.layer, (False, False))
            found[m.layer] = (before[0] or m.side in ("in", "both"), before[1] or m.side in ("out", "both"))
    return found


def _widths(shape: LayerShape, reads: bool, makes: bool) -> list[tuple[int, int]]:
    def share(width: int, of: float, can: bool) -> int:
        if not can or of == 1:
            return width
        lanes = 1 if shape.kind == "attention" else LANES
        return min(width, max(lanes, round(width * of / lanes) * lanes))

    return list(dict.fromkeys((share(shape.cin, s, reads), share(shape.out, s, makes)) for s in SHARES))


def _curve(name: str, shape: LayerShape, found: list[tuple[tuple[int, int], float]]) -> LayerCurve:
    """Times never fall with the width: where they were found to, it was noise."""
    points = sorted((out if shape.depthwise else cin * out, ms) for (cin, out), ms in found)
    rising = np.maximum.accumulate([ms for _, ms in points])
    return LayerCurve(
        name=name, positions=shape.positions, depthwise=shape.depthwise, products=tuple(p for p, _ in points),
        ms=tuple(float(v) for v in rising),
    )  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A layer of the present network: widths that stay, and how much of each comes with a root channel of each group."""

    curve: LayerCurve
    cin: float
    out: float
    reads: Mapping[str, float]
    makes: Mapping[str, float]

    def inside(self, block: str) -> bool:
        return f"{self.curve.name}.".startswith(f"{block}.")


class LatencyTable:
    """Milliseconds of a network for any widths of its groups, and without any of its blocks."""

    def __init__(self, times: LayerTimes, module: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        present = dict(module.named_modules())
        terms = _terms(groups)
        self.rest = times.rest_ms
        self.rows = [
            _bound(c, present[c.name], groups, terms.get(c.name, [])) for c in times.curves if c.name in present
        ]
        self.present = {g.name: g.channels for g in groups}

    def total(self, kept: Mapping[str, int], removed: Iterable[str] = ()) -> float:
        """Of the network with ``kept[group]`` root channels of each group left (those not named keep theirs)."""
        widths, gone = {**self.present, **kept}, set(removed)
        return sum(float(self._ms(row, widths)) for row in self.rows if not any(row.inside(b) for b in gone))

    def of_block(self, block: str, kept: Mapping[str, int]) -> float:
        """What the layers of one block take."""
        widths = {**self.present, **kept}
        return sum(float(self._ms(row, widths)) for row in self.rows if row.inside(block))

    def of_group(
        self, group: str, options: npt.NDArray[np.int64], kept: Mapping[str, int], removed: Iterable[str] = ()
    ) -> Floats:
        """What the layers of one group take at each of its widths ``options``, all others as in ``kept``."""
        widths, gone = {**self.present, **kept, group: options}, set(removed)
        touched = [r for r in self.rows if group in r.reads or group in r.makes]
        times = [self._ms(row, widths) for row in touched if not any(row.inside(b) for b in gone)]
        return np.sum(times, axis=0) if times else np.zeros(len(options))

    def by_layer(self) -> dict[str, float]:
        """Layer -> milliseconds in the present network."""
        found: dict[str, float] = {}
        for row in self.rows:
            found[row.curve.name] = found.get(row.curve.name, 0.0) + float(self._ms(row, self.present))
        return found

    def _ms(self, row: _Row, widths: Mapping[str, Any]) -> Any:
        out = row.out + sum(share * widths[g] for g, share in row.makes.items())
        cin = row.cin + sum(share * widths[g] for g, share in row.reads.items())
        products = out if row.curve.depthwise else cin * out
        return np.interp(products, row.curve.products, row.curve.ms) + self.rest * row.curve.positions * out


def _terms(groups: Iterable[ChannelGroup]) -> dict[str, list[tuple[str, str, float]]]:
    """Layer -> (group, side, channels of the layer per root channel); of heads, the module that they are of."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    for group in groups:
        for m in group.members:
            layer = m.layer.rpartition(".")[0] if m.side == "heads" else m.layer
            found.setdefault(layer, []).append((group.name, m.side, len(m.index) / group.channels))
    return found


def _bound(
    curve: LayerCurve, layer: nn.Module, groups: Sequence[ChannelGroup], terms: list[tuple[str, str, float]]
) -> _Row:
    channels = {g.name: g.channels for g in groups}
    reads, makes = (
        {g: share for g, side, share in terms if side in sides} for sides in (("in",), ("out", "both", "heads"))
    )
    if isinstance(layer, nn.Linear):
        cin, out = layer.in_features, layer.out_features
    elif isinstance(layer, _Conv):
        cin, out = layer.in_channels, layer.out_channels
    else:  # attention, which has as many as its group
        cin = out = next(channels[g] for g, side, _ in terms if side == "heads")
    fixed = [size - sum(share * channels[g] for g, share in of.items()) for size, of in ((cin, reads), (out, makes))]
    return _Row(curve, fixed[0], fixed[1], reads, makes)
