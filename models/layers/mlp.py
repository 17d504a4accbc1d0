"""The MLP between two linear layers, under whatever names these have in checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's approximation of GELU, with which CLIP's weights were trained."""
    return x * torch.sigmoid(1.702 * x)


class QuickGelu(nn.Module):
    """:func:`quick_gelu` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return quick_gelu(x)


def mlp(
    dim: int, hidden: int, activation: nn.Module | None = None, names: tuple[str, str] = ("fc1", "fc2")
) -> nn.Sequential:
    """(..., dim) -> (..., dim) through ``hidden`` units.

    Args:
        activation: GELU where not given.
        names: of the two linear layers.
    """
    first, second = names
    layers = nn.Sequential()
    layers.add_module(first, nn.Linear(dim, hidden))
    layers.add_module("act", activation or nn.GELU())
    layers.add_module(second, nn.Linear(hidden, dim))
    return layers
