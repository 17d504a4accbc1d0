"""Residual blocks that can be taken out whole: ViT and Swin blocks, ConvNeXt blocks, bottlenecks with an identity shortcut.

A block is known by what it does, not by its class: with all of its parameters at zero it gives back what it was given, so there
is a shortcut around everything that it learned. A chain of such blocks (a stage) is none of its own. Depth is what pruning widths
cannot buy: a removed block frees all of its time, norms and copies too (Xu et al. 2025, "MDP: Multidimensional Vision Model
Pruning with Latency Constraint", prune blocks beside widths).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.compress.prune.groups import Example
from rsedge.models.structure import Skipped

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
_REFUSED = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError)
"""What networks raise where a block that they look into is not there, or gets another input than they make."""


@dataclass
class _Call:
    """How a module was called the first time, and whether every call gave what has the shape of its first input."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keeps_shape: bool


def residual_blocks(module: nn.Module, example: Example, keep: set[str] | None = None) -> list[str]:
    """Names of the blocks that can be skipped, in the order of the modules; the network runs without any one of them.

    Args:
        example: the input or inputs of a forward pass, on the module's device.
        keep: layers that must stay; blocks that hold one stay too.
    """
    calls = _calls(module, example)
    found = [name for name, call in calls.items() if _passes_on(module.get_submodule(name), call)]
    free = [name for name in _whole(module, found) if not any(f"{k}.".startswith(f"{name}.") for k in keep or ())]
    return [name for name in free if _runs_without(module, name, example)]


@contextmanager
def without(module: nn.Module, name: str) -> Iterator[nn.Module]:
    """The network without one of its blocks, which is put back at the end."""
    owner, _, key = name.rpartition(".")
    parent = module.get_submodule(owner)
    block = parent._modules[key]
    parent._modules[key] = Skipped()
    try:
        yield module
    finally:
        parent._modules[key] = block


def _run(module: nn.Module, example: Example) -> None:
    with torch.no_grad():
        module(*example) if isinstance(example, tuple) else module(example)


def _calls(module: nn.Module, example: Example) -> dict[str, _Call]:
    """How modules that hold layers and keep shapes were called; layers themselves and the network left out."""
    calls: dict[str, _Call] = {}
    handles = []

    def record(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            first = args[0] if args else None
            same = isinstance(first, Tensor) and isinstance(output, Tensor) and first.shape == output.shape
            call = calls.setdefault(name, _Call(args, kwargs, same))
            call.keeps_shape &= same

        return hook

    for name, layer in module.named_modules():
        if name and not isinstance(layer, _LAYERS) and any(isinstance(m, _LAYERS) for m in layer.modules()):
            handles.append(layer.register_forward_hook(record(name), with_kwargs=True))
    try:
        _run(module, example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: call for name, call in calls.items() if call.keeps_shape}


@torch.no_grad()
def _passes_on(block: nn.Module, call: _Call) -> bool:
    """Whether the block gives back its input where it has learned nothing. Inputs are positive, as behind a ReLU."""
    silent = copy.deepcopy(block)
    for parameter in silent.parameters():
        parameter.zero_()
    given = call.args[0]
    x = torch.rand(given.shape, dtype=given.dtype, device=given.device, generator=_generator(given.device))
    try:
        out = silent(x.clone(), *call.args[1:], **call.kwargs)
    except _REFUSED:
        return False
    return isinstance(out, Tensor) and out.shape == x.shape and bool(torch.allclose(out, x, rtol=1e-5, atol=1e-5))


def _generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def _whole(module: nn.Module, found: list[str]) -> list[str]:
    """Blocks without those of their parts that pass on as well, and without chains of several blocks."""
    inner: Mapping[str, list[str]] = {name: [n for n in found if _inside(n, name)] for name in found}
    single = [name for name in found if not _chain(module.get_submodule(name), name, inner[name])]
    return [name for name in single if not any(_inside(name, other) for other in single)]


def _chain(block: nn.Module, name: str, inner: list[str]) -> bool:
    """Whether a block is made of others: several in a row, or one with no layer around it."""
    direct = [n for n in inner if not any(_inside(n, other) for other in inner)]
    layers = [f"{name}.{n}" for n, m in block.named_modules() if isinstance(m, _LAYERS)]
    return len(direct) > 1 or (bool(direct) and all(any(_inside(n, d) for d in direct) for n in layers))


def _inside(name: str, folder: str) -> bool:
    return name.startswith(folder + ".")


def _runs_without(module: nn.Module, name: str, example: Example) -> bool:
    try:
        with without(module, name):
            _run(module, example)
    except _REFUSED:
        return False
    return True
