"""The features of a network that is of no family: by its own contract, by its library's declaration, else as runs show them.

A network of somebody's own says them by a method ``feature_contract(shape) -> features``. timm and segmentation-models-pytorch
declare modules, strides and channels, and one run says which axis is which. Of any other network two runs do: in the second the
batch is larger and the image wider, so that the axes which follow are known. Where a network takes one size alone, a tensor is
published if its shape has one reading; a tensor with several is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.models.answers import Answering
from rsedge.models.features import Feature, Features, Layout, Shape, inside
from rsedge.models.library_features import smp_claims, timm_claims

Shapes = dict[str, Shape]
BATCH = 2
"""A batch of one cannot be told from other axes of one."""
MOST_PREFIX = 8
"""Tokens ahead of a grid: a class token, one of distillation, registers."""
IMAGE_AXES = 4
_REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, KeyError, AttributeError)
"""What networks of one size raise at another one."""


def published(net: nn.Module, inputs: tuple[Tensor, ...]) -> Features:
    """What a network publishes; empty where nothing in it is a feature.

    Args:
        inputs: examples of what it takes, batch axis first; their values do not matter.
    """
    if isinstance(net, Answering):
        return inside("net", published(net.net, inputs))
    own: Callable[[Shape], Features] | None = getattr(net, "feature_contract", None)
    if own is not None:
        return tuple(own(tuple(inputs[0].shape[1:])))
    seen = _shapes(net, _batch(inputs, BATCH))
    claims = timm_claims(net) or smp_claims(net)
    edge = _edge(inputs)
    declared = {f.name: f for one in claims if (f := _first_that_fits(one, seen, edge)) is not None}
    return tuple(declared.values()) or _measured(net, inputs, seen)


def _first_that_fits(readings: Iterable[Feature], seen: Shapes, edge: int) -> Feature | None:
    """What a library's claim turns out to be; None where no reading is what the module gives."""
    for feature in readings:
        shape = seen.get(feature.name)
        if shape is not None and feature.holds(shape) and feature.lies_on(shape, edge):
            return feature
    return None


def _measured(net: nn.Module, inputs: tuple[Tensor, ...], seen: Shapes) -> Features:
    edge, length = _edge(inputs), inputs[0].shape[1]
    try:
        wider = _shapes(net, tuple(_widened(x, edge) for x in _batch(inputs, BATCH + 1)))
        grown = True
    except _REFUSALS:
        wider, grown = _shapes(net, _batch(inputs, BATCH + 1)), False
    found = []
    for name, shape in seen.items():
        other = wider.get(name, ())
        if len(other) == len(shape) and (shape[:1], other[:1]) == ((BATCH,), (BATCH + 1,)):
            read = _by_growth(shape[1:], other[1:], edge, length) if grown else _by_shape(shape[1:], edge)
            found += [] if read is None else [Feature(name, *read)]
    return tuple(found)


Reading = tuple[int, Layout] | tuple[int, Layout, int] | tuple[int, Layout, int, tuple[int, int], int]
"""Channels, layout, stride, grid, prefix of a feature."""


def _by_growth(shape: Shape, wider: Shape, edge: int, length: int) -> Reading | None:
    """What a tensor is whose shape became ``wider`` when the image (or a series of ``length`` steps) did; both without the batch
    axis."""
    grew = [axis for axis, (a, b) in enumerate(zip(shape, wider, strict=True)) if a != b]
    match len(shape), grew:
        case 1, []:
            return shape[0], "NC"
        case 2, [0]:
            return _tokens(shape, wider[0] - shape[0], edge)
        case 2, [1]:
            return shape[0], "NCL", 0 if edge else round(length / shape[1])
        case 3, [2] if edge and shape[1] == shape[2]:
            return shape[0], "NCHW", round(edge / shape[1])
        case 3, [1] if edge and shape[0] == shape[1]:
            return shape[2], "NHWC", round(edge / shape[0])
        case 3, [] if shape[1:] == (1, 1):
            return shape[0], "NCHW", edge
    return None


def _tokens(shape: Shape, places: int, edge: int) -> Reading:
    """Tokens (L, C) of which ``places`` are of the image; on a grid where that is a square behind a few others."""
    side, prefix = math.isqrt(max(places, 0)), shape[0] - places
    if edge and side and side * side == places and 0 <= prefix <= MOST_PREFIX:
        return shape[1], "NLC", round(edge / side), (side, side), prefix
    return shape[1], "NLC"


def _by_shape(shape: Shape, edge: int) -> Reading | None:
    """The one reading of a shape, without the batch axis; None where there are several."""
    if len(shape) == 1:
        return shape[0], "NC"
    readings: list[Reading] = []
    if len(shape) == 2:
        readings += [_tokens(shape, n, edge) for n in _squares(shape[0], edge)]
        # Channels first: the same number of places along the other axis.
        readings += [(shape[0], "NCL") for _ in _squares(shape[1], edge)]
    if len(shape) == 3:
        if shape[1] == shape[2] <= edge:
            readings.append((shape[0], "NCHW", round(edge / shape[1])))
        if shape[0] == shape[1] <= edge:
            readings.append((shape[2], "NHWC", round(edge / shape[0])))
    return readings[0] if len(readings) == 1 else None


def _squares(length: int, edge: int) -> list[int]:
    """Numbers of tokens of a square grid over the image that ``length`` can hold behind a few others."""
    sides = [side for side in range(2, edge + 1) if edge % side == 0]
    return [side**2 for side in sides if 0 <= length - side**2 <= MOST_PREFIX]


def _edge(inputs: tuple[Tensor, ...]) -> int:
    """Pixels along an image's side; 0 where no input is an image."""
    return next((x.shape[-1] for x in inputs if x.ndim >= IMAGE_AXES), 0)


def _batch(inputs: tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(x[:1]).expand(count, *x.shape[1:]) for x in inputs)


def _widened(x: Tensor, edge: int) -> Tensor:
    """Images of twice the columns; without any, series (N, T, C) of twice the length."""
    if x.ndim >= IMAGE_AXES:
        return torch.cat([x, x], -1)
    return torch.cat([x, x], 1) if not edge and x.ndim == 3 else x


@torch.no_grad()
def _shapes(net: nn.Module, inputs: tuple[Tensor, ...]) -> Shapes:
    """Shapes of what all submodules give, by their names, of several tensors each; in the order of first calls."""
    found: Shapes = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            several = isinstance(output, (list, tuple)) and not isinstance(output, dict)
            outputs = {f"{name}[{i}]": one for i, one in enumerate(output)} if several else {name: output}
            found.update({key: tuple(one.shape) for key, one in outputs.items() if isinstance(one, Tensor)})

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in net.named_modules() if name]
    was_training = net.training
    try:
        net.eval()(*inputs)
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    return found
