"""Which channels a pruning step removes, so that multiply-accumulates (MACs) or parameters fall to an aim.

Widths stay multiples of the hardware's vector length: a layer of 37 channels runs as slowly as one of 40.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rsedge.compress.prune.groups import (
    ChannelGroup,
    Crossed,
    Example,
    Removal,
    attentions,
    crossed_positions,
    positions_left,
)

Scope = Literal["uniform", "global", "global-per-cost", "latency"]
Metric = Literal["macs", "params"]

_Conv = nn.modules.conv._ConvNd


def run_example(module: nn.Module, example: Example) -> None:
    """One forward pass."""
    module(*example) if isinstance(example, tuple) else module(example)


def count_macs(module: nn.Module, example: Example) -> int:
    """MACs of one forward pass: convolutions, matrix products and attention, as torch's FLOP counter counts them."""
    return int(_counted(module, example).get_total_flops()) // 2


def _counted(module: nn.Module, example: Example) -> FlopCounterMode:
    training = module.training
    learned = [p for p in module.parameters() if p.requires_grad]
    module.eval()
    try:
        for p in learned:  # the counter wants a gradient function of those that enter a layer, such as learned queries
            p.requires_grad_(False)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run_example(module, example)
    finally:
        for p in learned:
            p.requires_grad_(True)
        module.train(training)
    return counter


def count_params(module: nn.Module) -> int:
    """Number of parameters (buffers do not count)."""
    return sum(p.numel() for p in module.parameters())


@dataclass(frozen=True)
class _Size:
    cin: int
    cout: int
    depthwise: bool
    kernel: int
    positions: int
    per_out: int


class CostModel:
    """MACs and parameters of the prunable layers after a removal, without building the smaller network.

    What queries and keys, and their weights and values, are multiplied for goes with the heads and their dimensions, as layers do.
    """

    def __init__(self, module: nn.Module, example: Example, groups: Sequence[ChannelGroup], metric: Metric) -> None:
        self.groups = {g.name: g for g in groups}
        self.metric = metric
        self.sizes = _layer_sizes(module, example) | _param_sizes(module, groups)
        counted = _counted(module, example)
        self.products = _attention_products(module, counted, groups) if metric == "macs" else {}
        self.total = float(counted.get_total_flops() // 2 if metric == "macs" else count_params(module))
        full, sides = {g.name: g.channels for g in groups}, crossed_positions(groups)
        self._reads = {name: sides.get((name, "in"), {}) for name in self.sizes}
        self._makes = {name: sides.get((name, "out"), {}) for name in self.sizes}
        self._stay = {
            name: (
                size.cin - positions_left(self._reads[name], full),
                size.cout - positions_left(self._makes[name], full),
            )
            for name, size in self.sizes.items()
        }
        self._fixed = self.total - self._layers(full)

    def cost(self, counts: Mapping[str, int]) -> float:
        """The metric when ``counts[group]`` root channels are gone from each group."""
        return self._fixed + self._layers({n: g.channels - counts.get(n, 0) for n, g in self.groups.items()})

    def _layers(self, kept: Mapping[str, int]) -> float:
        layers = sum(
            self._layer(
                size,
                self._stay[name][0] + positions_left(self._reads[name], kept),
                self._stay[name][1] + positions_left(self._makes[name], kept),
            )
            for name, size in self.sizes.items()
        )
        return layers + float(positions_left(self.products, kept))

    def _layer(self, size: _Size, cin: float, cout: float) -> float:
        weights = size.kernel * cout * (1 if size.depthwise else cin)
        return float(weights * size.positions if self.metric == "macs" else weights + size.per_out * cout)


def _attention_products(module: nn.Module, counted: FlopCounterMode, groups: Sequence[ChannelGroup]) -> Crossed:
    """The MACs of attentions that are of no layer, all products but those of layers with weights: of queries and keys, and of
    values, each with the heads and with the dimensions of these, where they can go."""
    flops = {name: sum(by_kind.values()) for name, by_kind in counted.get_flop_counts().items()}
    found: Crossed = {}
    for attention in attentions(groups):
        layers = [
            n for n, m in module.get_submodule(attention.owner).named_modules() if isinstance(m, _Conv | nn.Linear)
        ]
        path = ".".join(filter(None, (type(module).__name__, attention.owner)))
        inside = sum(flops.get(f"{path}.{layer}", 0) for layer in layers)
        macs = (flops.get(path, 0) - inside) / 2
        for dims, width in ((attention.queries, attention.query_width), (attention.values, attention.value_width)):
            share = macs * width / (attention.query_width + attention.value_width)
            crossing = [attention.heads, *([dims] if dims else [])]
            names = tuple(g.name for g in crossing)
            found[names] = found.get(names, 0.0) + share / math.prod(g.channels for g in crossing)
    return found


def _layer_sizes(module: nn.Module, example: Example) -> dict[str, _Size]:
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, _Conv | nn.Linear):
            shapes[name] = (0, 0)  # one that is never called has parameters all the same
            handles.append(layer.register_forward_hook(_shape_recorder(shapes, name)))
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            run_example(module, example)
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return {name: _size(module.get_submodule(name), shape) for name, shape in shapes.items()} | _norm_sizes(module)


def _shape_recorder(shapes: dict[str, tuple[int, ...]], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def record(layer: nn.Module, inputs: Any, output: Any) -> None:
        shapes[name] = tuple(inputs[0].shape if isinstance(layer, _Conv) and layer.transposed else output.shape)

    return record


def _size(layer: nn.Module, shape: tuple[int, ...]) -> _Size:
    bias = int(layer.bias is not None)
    if isinstance(layer, _Conv):
        positions = shape[0] * math.prod(shape[2:])
        depthwise = layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
        cin = layer.in_channels if depthwise else layer.in_channels // layer.groups
        return _Size(cin, layer.out_channels, depthwise, math.prod(layer.kernel_size), positions, bias)
    assert isinstance(layer, nn.Linear)
    return _Size(layer.in_features, layer.out_features, False, 1, math.prod(shape[:-1]), bias)


def _param_sizes(module: nn.Module, groups: Iterable[ChannelGroup]) -> dict[str, _Size]:
    """Of parameters that are of no layer and shrink with a group."""
    sizes = {}
    for m in (m for g in groups for m in g.members if m.side == "param"):
        parameter = module.get_parameter(m.layer)
        sizes[m.layer] = _Size(0, parameter.shape[m.dim], False, 0, 0, parameter.numel() // parameter.shape[m.dim])
    return sizes


def _norm_sizes(module: nn.Module) -> dict[str, _Size]:
    sizes = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.weight is not None:
            sizes[name] = _Size(0, layer.num_features, False, 0, 0, 2)
        elif isinstance(layer, nn.LayerNorm) and layer.elementwise_affine and len(layer.normalized_shape) == 1:
            sizes[name] = _Size(0, layer.normalized_shape[0], False, 0, 0, 2)
    return sizes


def lowest_width(channels: int, round_to: int, max_ratio: float) -> int:
    """The fewest channels that may be left of ``channels``: a multiple of ``round_to``, at least one of them."""
    least = math.ceil(channels * (1 - max_ratio) / round_to) * round_to
    return min(channels, max(round_to, least))


def lowest_widths(
    groups: Iterable[ChannelGroup], round_to: int, full_width: Mapping[str, int], max_ratio: float
) -> dict[str, int]:
    """Group -> the fewest root channels that may be left of it, of its width before any pruning."""
    return {
        g.name: min(g.channels, lowest_width(full_width.get(g.name, g.channels), g.rounding(round_to), max_ratio))
        for g in groups
    }


def rounded_width(channels: int, ratio: float, round_to: int, max_ratio: float) -> int:
    """Channels left of ``channels`` when ``ratio`` of them should go: the nearest multiple of ``round_to``."""
    nearest = round(channels * (1 - ratio) / round_to) * round_to
    return min(channels, max(lowest_width(channels, round_to, max_ratio), nearest))


def plan_removal(
    cost: CostModel,
    scores: Mapping[str, Tensor],
    aim: float,
    *,
    scope: Scope = "global",
    round_to: int = 8,
    full_width: Mapping[str, int] | None = None,
    max_layer_ratio: float = 0.75,
) -> Removal:
    """The least valued channels whose removal brings the metric to ``aim`` or under, as far as limits allow.

    Args:
        scores: per group, shape (channels,).
        aim: MACs or parameters of the whole network.
        round_to: positions of a layer; groups whose channels stand for several take fewer at once.
        scope: ``uniform`` takes the same share of every group; ``global`` ranks chunks of ``round_to`` channels over
            all groups; ``global-per-cost`` ranks them by score per MAC (or parameter) saved, which spares cheap layers.
        full_width: channels per group before any pruning; ``max_layer_ratio`` of them may go in all steps together.
    """
    chunks = {n: cost.groups[n].rounding(round_to) for n in scores}
    lowest = lowest_widths([cost.groups[n] for n in scores], round_to, full_width or {}, max_layer_ratio)
    if scope == "uniform":
        counts = _uniform(cost, scores, aim, chunks, lowest)
    else:
        counts = _greedy(cost, scores, aim, chunks, lowest, per_cost=scope == "global-per-cost")
    return {
        name: sorted(torch.argsort(scores[name], stable=True)[:count].tolist())
        for name, count in counts.items()
        if count > 0
    }


def _uniform(
    cost: CostModel, scores: Mapping[str, Tensor], aim: float, chunks: Mapping[str, int], lowest: Mapping[str, int]
) -> dict[str, int]:
    counts: dict[str, int] = {}
    for percent in range(1, 100):
        counts = {
            n: len(s) - max(lowest[n], rounded_width(len(s), percent / 100, chunks[n], 1.0)) for n, s in scores.items()
        }
        if cost.cost(counts) <= aim:
            break
    return counts


def _greedy(
    cost: CostModel,
    scores: Mapping[str, Tensor],
    aim: float,
    chunks: Mapping[str, int],
    lowest: Mapping[str, int],
    per_cost: bool,
) -> dict[str, int]:
    ordered = {n: torch.sort(s, stable=True).values for n, s in scores.items()}
    counts = dict.fromkeys(scores, 0)
    now = cost.cost(counts)
    while now > aim:
        best: tuple[float, str, int] | None = None
        for name, values in ordered.items():
            left = len(values) - counts[name]
            chunk = left % chunks[name] or chunks[name]
            if left - chunk < lowest[name]:
                continue
            loss = float(values[counts[name] : counts[name] + chunk].sum())
            if per_cost:
                loss /= max(now - cost.cost({**counts, name: counts[name] + chunk}), 1e-12)
            else:
                loss /= chunk
            if best is None or (loss, name) < best[:2]:
                best = (loss, name, chunk)
        if best is None:
            break
        counts[best[1]] += best[2]
        now = cost.cost(counts)
    return counts
