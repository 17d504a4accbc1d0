"""Batch normalisation over a step whose views several processes share: mean and variance are those of all of them.

``torch.nn.SyncBatchNorm`` takes tensors of GPUs alone. Here statistics go through whatever the group has, gloo on CPUs too, and no
module changes its class: within :class:`GlobalNorm` every ``batch_norm`` that trains, whoever calls it, is of the whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Exchange = Callable[[Tensor], Tensor]
"""A tensor (C,) of this process -> those of all processes (processes, C)."""


class GlobalNorm(TorchFunctionMode):
    """Within the block, batch norms in training see what all processes see."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(self._exchange, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    exchange: Exchange,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As :func:`torch.nn.functional.batch_norm`."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    mean, var, count = _moments(exchange, x)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)
    out: Tensor = _Normalised.apply(x, mean, var, weight, bias, eps, count, exchange)
    return out


@torch.no_grad()
def _moments(exchange: Exchange, x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance (C,) over all views and places of all processes, and how many values they are of."""
    own_var, own_mean = torch.var_mean(_wide(x), _axes(x), correction=0)
    values = x.numel() // x.shape[1]
    sent = torch.cat([own_mean, own_var, own_mean.new_full((1,), values)])
    means, variances, counts = exchange(sent).double().split([x.shape[1], x.shape[1], 1], 1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    var = (counts * (variances + (means - mean) ** 2)).sum(0) / total
    return mean.to(own_mean.dtype), var.to(own_mean.dtype), int(total)


class _Normalised(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias, where mean and deviation follow x, that of other processes too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        count: int,
        exchange: Exchange,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, torch.rsqrt(var + eps), weight)
        ctx.count, ctx.exchange = count, exchange
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight = ctx.saved_tensors
        over, channels, given = _axes(x), x.shape[1], _wide(grads[0])
        normal = (_wide(x) - _placed(mean, x)) * _placed(scale, x)
        own = torch.cat([given.sum(over), (given * normal).sum(over)])
        along_one, along_x = (ctx.exchange(own).sum(0) / ctx.count).split(channels)
        slope = scale if weight is None else scale * weight
        back = (given - _placed(along_one, x) - normal * _placed(along_x, x)) * _placed(slope, x)
        of_weight, of_bias = (None, None) if weight is None else (own[channels:], own[:channels])
        return back.to(x.dtype), None, None, of_weight, of_bias, None, None, None


def _axes(x: Tensor) -> list[int]:
    """All but the channels'."""
    return [0, *range(2, x.ndim)]


def _placed(values: Tensor, x: Tensor) -> Tensor:
    """(C,) beside (N, C, ...)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def _wide(x: Tensor) -> Tensor:
    """At least single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
