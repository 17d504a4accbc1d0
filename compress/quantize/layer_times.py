"""Time per layer of an INT8 model beside that of its float network, as OpenVINO's profile of nodes gives it.

A profile names candidates and no more: it is wall time, and what a layer costs depends on its neighbours' formats. A race of the
whole model decides (:mod:`rsedge.compress.quantize.tune`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from rsedge.data.record import Record

RUNS = 16
Times = Mapping[str, float]
"""Node -> milliseconds, in the order of execution."""


class LayerTimes(Record):
    """A layer, with those before it that are no node of their own in both models (such as products of fused attention)."""

    layers: tuple[str, ...]
    int8_ms: float = Field(
        description="with what runs before it and is no layer, such as rounding and changes of format"
    )
    float_ms: float

    @property
    def saved_ms(self) -> float:
        """What a run would save with the layer in float, were nothing else to change."""
        return self.int8_ms - self.float_ms


def node_times(int8: Any, plain: Any, feed: Any, runs: int = RUNS) -> tuple[dict[str, float], dict[str, float]]:
    """The least time of every node over some runs, models in turns; 0 of nodes that are fused into others.

    Args:
        int8, plain: requests of models compiled with ``PERF_COUNT``.
        feed: what one run takes.
    """
    best: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for _ in range(runs):
        for found, request in zip(best, (int8, plain), strict=True):
            request.infer(feed)
            for info in request.get_profiling_info():
                ms = info.real_time.total_seconds() * 1e3
                found[info.node_name] = min(ms, found.get(info.node_name, ms))
    return best


def layer_times(int8: Times, plain: Times, layers: Sequence[str], rounded: Collection[str]) -> list[LayerTimes]:
    """Layers side by side. What is no layer is charged to the next one that both models run as a node, or at the end to the last.

    Args:
        int8: times of the INT8 model's nodes.
        plain: of the float model's.
        layers: all layers, in the order in which they run.
        rounded: those of them that the INT8 model computes in 8 bits.
    """
    shared = [name for name in layers if int8.get(name) and plain.get(name)]
    mine, theirs = _charged(int8, shared), _charged(plain, shared)
    found = []
    for name, group in _up_to(layers, shared):
        some = tuple(one for one in group if one in rounded)
        if some:
            found.append(LayerTimes(layers=some, int8_ms=mine[name], float_ms=theirs[name]))
    return found


def _charged(times: Times, shared: Sequence[str]) -> dict[str, float]:
    found, waiting, last = dict.fromkeys(shared, 0.0), 0.0, None
    for node, ms in times.items():
        waiting += ms
        if node in found:
            found[node], waiting, last = waiting, 0.0, node
    if last is not None:
        found[last] += waiting
    return found


def _up_to(layers: Sequence[str], shared: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    group: list[str] = []
    for name in layers:
        group.append(name)
        if name in shared:
            yield name, group
            group = []
