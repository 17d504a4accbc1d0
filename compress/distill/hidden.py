"""Which weights of a network are hidden matrices: neither its stems, which read the input's bands, nor its heads, which write its
outputs.

Read off one pass: every layer's result is marked, and the graph behind the outputs says which marks a layer reads. So it does not
matter how wide a layer is or what it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_Conv = nn.modules.conv._ConvNd
LAYERS = (_Conv, nn.Linear, nn.MultiheadAttention, nn.RNNBase)
"""Layers that multiply by matrices. Tables that are added (positions, class tokens) or looked up (embeddings) multiply nothing."""


class _Mark(torch.autograd.Function):
    """Gives its tensor as it is; its node in the graph knows the layer."""

    @staticmethod
    def forward(context: Any, x: Tensor, name: str) -> Tensor:
        context.layer = name
        return x.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def hidden_matrices(net: nn.Module, inputs: Iterable[Tensor]) -> list[nn.Parameter]:
    """The weights of two or more axes of layers that read other layers' results and whose own results other layers read.

    A depthwise or grouped convolution is no matrix from all its inputs to all its outputs, and is left out; so is a layer whose
    weights are used without calling it, which no mark tells of.

    Args:
        net: left as it is; its statistics are not touched.
        inputs: of one pass.
    """
    layers: dict[str, nn.Module] = {name: m for name, m in net.named_modules() if isinstance(m, LAYERS)}
    reads = _reads(net, layers, tuple(inputs))
    read = set().union(*reads.values()) if reads else set()
    return [
        parameter
        for name, layer in layers.items()
        if reads.get(name) and name in read and getattr(layer, "groups", 1) == 1
        for parameter in layer.parameters()
        if parameter.ndim > 1
    ]


def _reads(net: nn.Module, layers: dict[str, nn.Module], inputs: tuple[Tensor, ...]) -> dict[str, set[str]]:
    """Layer -> the layers whose results reach it without another layer between, of all its calls."""
    found: dict[str, set[str]] = {}
    modes = {m: m.training for m in net.modules()}
    handles = []
    for name, layer in layers.items():
        handles.append(layer.register_forward_pre_hook(_reader(found, name), with_kwargs=True))
        handles.append(layer.register_forward_hook(_marker(name)))
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            net.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return found


def _reader(found: dict[str, set[str]], name: str) -> Callable[..., None]:
    def hook(_layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        marks = {mark for tensor in _tensors((given, tuple(named.values()))) for mark in _marks_behind(tensor)}
        found.setdefault(name, set()).update(marks)

    return hook


def _marker(name: str) -> Callable[..., Any]:
    def hook(_layer: nn.Module, _given: Any, result: Any) -> Any:
        return _mapped(result, lambda tensor: _Mark.apply(tensor, name))  # type: ignore[no-untyped-call]

    return hook


def _marks_behind(tensor: Tensor) -> Iterator[str]:
    """The marks from which a tensor was made, up to the nearest on each way."""
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (mark := getattr(node, "layer", None)) is not None:
            yield mark
        else:
            waiting += [before for before, _ in node.next_functions]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() and value.requires_grad else value
    return tuple(_mapped(part, change) for part in value) if type(value) in (tuple, list) else value
