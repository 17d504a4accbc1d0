"""How long each layer of a network takes at each of its widths: the table that pruning towards a latency goes by.

Layers are timed alone, each shape once, at their full width and at shares of it; between these a layer's time is interpolated over
its products. What a whole network takes beyond its layers (norms, copies, sums) goes with the values that layers write. The
table plans; whether a cut pays is then measured on the network itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn

from rsedge.compress.prune.groups import (
    AttentionGroups,
    ChannelGroup,
    Crossed,
    Example,
    attentions,
    crossed_positions,
    positions_left,
)
from rsedge.data.record import Record
from rsedge.models.layer_shape import LayerShape

Floats = npt.NDArray[np.float64]

SHARES = (1.0, 0.5, 0.25)
"""Of the channels on every side of a layer that can shrink; layers are timed at these widths."""
CROSSED_SHARES = (0.125, 0.0625)
"""Further down, where two groups make a side of a layer narrower, such as heads and dimensions of heads."""
LANES = 8
"""Widths at which layers are timed are multiples of it, or the whole."""

_Conv = nn.modules.conv._ConvNd


class LayerCurve(Record):
    """Milliseconds of one layer over its products (channels in times channels out; channels alone where it is depthwise).

    ``positions`` is how many values it writes per output channel. Of attention whose heads can be narrowed, ``head_widths`` rise to
    that of the network, the mean of queries' and values', and ``narrowed`` is the share of the time that is left at each.
    """

    name: str
    positions: int
    depthwise: bool
    products: tuple[int, ...]
    ms: tuple[float, ...]
    head_widths: tuple[int, ...] = ()
    narrowed: tuple[float, ...] = ()


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


def layer_shapes(module: nn.Module, example: Example, groups: Sequence[ChannelGroup]) -> list[tuple[str, LayerShape]]:
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
    for attention in attentions(groups):
        heads = attention.heads
        if heads.name in given:
            tokens = given[heads.name].input
            width = (attention.query_width + attention.value_width) // 2
            shape = (math.prod(tokens[:-2]), heads.channels, tokens[-2] if len(tokens) > 1 else 1, width)
            found.append((attention.owner, LayerShape("attention", shape, heads.channels)))
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
    sides, narrowing = _sides(groups), {a.owner for a in attentions(groups) if _free(a.queries) or _free(a.values)}
    rows = [(name, shape, _widths(shape, sides.get(name, {}))) for name, shape in layer_shapes(module, example, groups)]
    narrow = {shape: _narrow(shape) for name, shape, _ in rows if shape.kind == "attention" and name in narrowing}
    sized = [shape.resized(*w) for _, shape, widths in rows for w in widths]
    wanted = list(dict.fromkeys([*sized, *(s for shapes in narrow.values() for s in shapes)]))
    whole, each, provenance = timed(module, wanted)
    ms = dict(zip(wanted, each, strict=True))
    alone = sum(ms[shape] for _, shape, _ in rows)
    scale = min(1.0, whole / alone)
    written = sum(shape.positions * shape.out for _, shape, _ in rows)
    return LayerTimes(
        whole_ms=whole, rest_ms=(whole - alone * scale) / written, provenance=provenance,
        curves=tuple(
            _curve(name, shape, [(w, scale * ms[shape.resized(*w)]) for w in widths], [(s, ms[s]) for s in narrow.get(shape, ())])
            for name, shape, widths in rows
        ),
    )  # fmt: skip


def _free(group: ChannelGroup | None) -> bool:
    return group is not None and not group.blocked


def _narrow(attention: LayerShape) -> list[LayerShape]:
    """The same attention with narrower heads, and as it is."""
    *rest, width = attention.input
    widths = sorted({min(width, max(LANES, round(width * share / LANES) * LANES)) for share in SHARES} | {width})
    return [replace(attention, input=(*rest, w)) for w in widths]


def _sides(groups: Sequence[ChannelGroup]) -> dict[str, dict[str, int]]:
    """Layer -> of its sides that can shrink (``in``, ``out``), how many groups cross there."""
    free = [g for g in groups if not g.blocked]
    found: dict[str, dict[str, int]] = {a.owner: {"in": 1, "out": 1} for a in attentions(free)}
    for (layer, side), crossed in crossed_positions(free).items():
        found.setdefault(layer, {})[side] = max(map(len, crossed))
    return found


def _widths(shape: LayerShape, sides: Mapping[str, int]) -> list[tuple[int, int]]:
    """Channels in and out at which a layer is timed."""

    def share(width: int, of: float, side: str) -> int:
        if side not in sides or of == 1:
            return width
        lanes = 1 if shape.kind == "attention" else LANES
        return min(width, max(lanes, round(width * of / lanes) * lanes))

    shares = (*SHARES, *CROSSED_SHARES) if max(sides.values(), default=0) > 1 else SHARES
    return list(dict.fromkeys((share(shape.cin, s, "in"), share(shape.out, s, "out")) for s in shares))


def _curve(
    name: str,
    shape: LayerShape,
    found: list[tuple[tuple[int, int], float]],
    narrow: list[tuple[LayerShape, float]],
) -> LayerCurve:
    """Times never fall with the width: where they were found to, it was noise."""
    points = sorted((out if shape.depthwise else cin * out, ms) for (cin, out), ms in found)
    rising = np.maximum.accumulate([ms for _, ms in points])
    widened = np.maximum.accumulate([ms for _, ms in narrow])
    return LayerCurve(
        name=name, positions=shape.positions, depthwise=shape.depthwise, products=tuple(p for p, _ in points),
        ms=tuple(float(v) for v in rising), head_widths=tuple(s.input[-1] for s, _ in narrow),
        narrowed=tuple(float(v) for v in widened / widened[-1]) if narrow else (),
    )  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A layer of the present network: channels that stay on its sides, and those that go with groups; of attention the width of its
    heads, the mean of queries' and values', in the same way."""

    curve: LayerCurve
    cin: float
    out: float
    reads: Crossed
    makes: Crossed
    width: float = 0.0
    dims: Crossed = field(default_factory=dict)

    def inside(self, block: str) -> bool:
        return f"{self.curve.name}.".startswith(f"{block}.")

    def depends_on(self, group: str) -> bool:
        return any(group in names for of in (self.reads, self.makes, self.dims) for names in of)


class LatencyTable:
    """Milliseconds of a network for any widths of its groups, and without any of its blocks."""

    def __init__(self, times: LayerTimes, module: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        present = dict(module.named_modules())
        sides, found = crossed_positions(groups), {a.owner: a for a in attentions(groups)}
        self.rest = times.rest_ms
        self.present = {g.name: g.channels for g in groups}
        self.rows = [
            _of_attention(c, found[c.name])
            if c.name in found
            else _of_layer(
                c, present[c.name], sides.get((c.name, "in"), {}), sides.get((c.name, "out"), {}), self.present
            )
            for c in times.curves
            if c.name in present
        ]

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
        touched = [r for r in self.rows if r.depends_on(group)]
        times = [self._ms(row, widths) for row in touched if not any(row.inside(b) for b in gone)]
        return np.sum(times, axis=0) if times else np.zeros(len(options))

    def by_layer(self) -> dict[str, float]:
        """Layer -> milliseconds in the present network."""
        found: dict[str, float] = {}
        for row in self.rows:
            found[row.curve.name] = found.get(row.curve.name, 0.0) + float(self._ms(row, self.present))
        return found

    def _ms(self, row: _Row, widths: Mapping[str, Any]) -> Any:
        out = row.out + positions_left(row.makes, widths)
        cin = row.cin + positions_left(row.reads, widths)
        products = out if row.curve.depthwise else cin * out
        layer = np.interp(products, row.curve.products, row.curve.ms)
        written = row.curve.positions * out
        if row.curve.head_widths:
            width = row.width + positions_left(row.dims, widths)
            layer = layer * np.interp(width, row.curve.head_widths, row.curve.narrowed)
            written = written * width / row.curve.head_widths[-1]
        return layer + self.rest * written


def _of_layer(curve: LayerCurve, layer: nn.Module, reads: Crossed, makes: Crossed, channels: Mapping[str, int]) -> _Row:
    if isinstance(layer, nn.Linear):
        cin, out = layer.in_features, layer.out_features
    else:
        assert isinstance(layer, _Conv)
        cin, out = layer.in_channels, layer.out_channels
    return _Row(curve, cin - positions_left(reads, channels), out - positions_left(makes, channels), reads, makes)


def _of_attention(curve: LayerCurve, attention: AttentionGroups) -> _Row:
    """One channel for each head."""
    stays, dims = 0.0, Crossed()
    for group, width in ((attention.queries, attention.query_width), (attention.values, attention.value_width)):
        if group is None:
            stays += width / 2
        else:
            dims[group.name,] = 0.5
    return _Row(curve, 0.0, 0.0, {}, {(attention.heads.name,): 1.0}, stays, dims)
