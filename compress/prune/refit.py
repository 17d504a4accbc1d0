"""After a cut, layers that read the channels that are gone are fitted anew to what they gave before, by least squares.

He, Zhang & Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks". Layers are taken in the order in which the
network calls them, each on the inputs that the layers fitted before it now give, so errors do not add up. It needs no
gradients and no labels, and what recovery starts from is nearer to the network before the cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.compress.prune.groups import ChannelGroup
from rsedge.data.errors import RequestError

RIDGE = 1e-4
"""Of the mean square of the inputs; holds directions that the inputs hardly reach to the weights that were there."""
PLACES = 64
"""Places per image at which a convolution is fitted, drawn at random: neighbours tell the same."""


@torch.no_grad()
def refit(
    cut: nn.Module,
    whole: nn.Module,
    groups: Iterable[ChannelGroup],
    removal: Mapping[str, Iterable[int]],
    batches: Sequence[Tensor],
    seed: int = 0,
) -> list[str]:
    """Fits linear layers and plain convolutions of ``cut`` that lost inputs, in place, to the outputs of ``whole``.

    Args:
        cut: the network after :func:`.prune_groups.remove_channels` took ``removal`` of ``groups`` from a copy of ``whole``.
        batches: inputs of the network, normalised, on its device; a layer with n inputs wants more than n rows in all.

    Returns:
        Names of the layers that were fitted.

    Raises:
        RequestError: what reaches a layer is not finite.
    """
    kept = _kept_outputs(whole, groups, removal)
    names = _read_less(cut, whole)
    fitted = []
    for name in _in_order_of_calls(cut, names, batches[0]):
        layer = cut.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        generator = torch.Generator().manual_seed(seed)
        products = [_products(cut, whole, name, kept.get(name), x, generator) for x in batches]
        square, mixed = (torch.stack(parts).sum(0) for parts in zip(*products, strict=True))
        _solve(layer, square, mixed)
        fitted.append(name)
    return fitted


def _read_less(cut: nn.Module, whole: nn.Module) -> list[str]:
    """Layers that can be fitted and have fewer inputs than before."""
    found = []
    for name, layer in cut.named_modules():
        if not (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)):
            continue
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            continue
        if layer.weight.shape[1] < whole.get_submodule(name).get_parameter("weight").shape[1]:
            found.append(name)
    return found


def _kept_outputs(
    whole: nn.Module, groups: Iterable[ChannelGroup], removal: Mapping[str, Iterable[int]]
) -> dict[str, list[int]]:
    """Layer -> which of its outputs before the cut are still there; layers that kept all are left out."""
    gone: dict[str, set[int]] = {}
    for group in groups:
        roots = set(removal.get(group.name, ()))
        for member in group.members if roots else ():
            if member.side == "out":
                lost = {i for i, r in zip(member.index, member.root, strict=True) if r in roots}
                gone.setdefault(member.layer, set()).update(lost)
    sizes = {name: whole.get_submodule(name).get_parameter("weight").shape[0] for name in gone}
    return {name: [i for i in range(sizes[name]) if i not in lost] for name, lost in gone.items()}


def _in_order_of_calls(net: nn.Module, names: list[str], x: Tensor) -> list[str]:
    """Those of ``names`` that are called, each once; weights that are used without a call cannot be fitted here."""
    order: list[str] = []
    handles = [
        net.get_submodule(n).register_forward_hook(lambda *_, n=n: order.append(n))
        for n in names  # type: ignore[misc]
    ]
    try:
        net(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))


def _products(
    cut: nn.Module, whole: nn.Module, name: str, kept: list[int] | None, x: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (a 1 for the bias behind them) times themselves, and times what the layer gave before; float64."""
    layer = cut.get_submodule(name)
    with _calls_of(layer) as calls, _calls_of(whole.get_submodule(name)) as before:
        cut(x)
        whole(x)
    given, wanted = calls[0][0], before[-1][1]
    if isinstance(layer, nn.Conv2d):
        rows, wanted = _patches(layer, given, wanted, generator)
    else:
        rows, wanted = given.flatten(0, -2), wanted.flatten(0, -2)
    if kept is not None:
        wanted = wanted[:, kept]
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1).double()
    return rows.T @ rows, rows.T @ wanted.double()


@contextmanager
def _calls_of(layer: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """What the layer was given and gave, call by call."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].detach(), output.detach())))
    try:
        yield seen
    finally:
        handle.remove()


def _patches(layer: nn.Conv2d, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a convolution reads at some of its places, and what it gave there: rows of values."""
    padding = layer.padding
    if isinstance(padding, str):  # "same" or "valid"
        sides = [
            d * (k - 1) if padding == "same" else 0 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        x = F.pad(x, list(itertools.chain(*((s // 2, s - s // 2) for s in reversed(sides)))))
        padding = (0, 0)
    read = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    made = y.flatten(2)
    at = torch.randperm(made.shape[-1], generator=generator)[:PLACES].to(x.device)
    return read[..., at].transpose(1, 2).flatten(0, 1), made[..., at].transpose(1, 2).flatten(0, 1)


def _solve(layer: nn.Linear | nn.Conv2d, square: Tensor, mixed: Tensor) -> None:
    """The weights nearest to the old ones that give ``mixed``: ridge regression towards what is there."""
    weight, bias = layer.weight, layer.bias
    n = square.shape[0] - 1
    if bias is None:
        square, mixed = square[:n, :n], mixed[:n]
        old = weight.flatten(1).T.double()
    else:
        old = torch.cat([weight.flatten(1), bias[:, None]], dim=1).T.double()
    hold = RIDGE * square.diagonal()[:n].mean().clamp(min=1e-12)
    square = square + hold * torch.eye(len(square), dtype=square.dtype, device=square.device)
    found = torch.linalg.solve(square, mixed + hold * old)
    if not torch.isfinite(found).all():
        raise RequestError("prune.refit_batches: the inputs of a layer hold NaN or infinity; check the training views")
    weight.copy_(found[:n].T.reshape(weight.shape).to(weight.dtype))
    if bias is not None:
        bias.copy_(found[n].to(bias.dtype))
