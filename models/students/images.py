"""Students that give a vector per image: timm's small networks, without downloaded weights."""

from __future__ import annotations

import timm
from torch import nn


def vector(bands: int, classes: int, model: str, depth: int | None = None) -> nn.Module:
    """A timm network of any input size: x (N, bands, H, W) normalised -> (N, classes).

    Args:
        model: timm's name.
        depth: blocks of networks that take that argument; timm's number where None.
    """
    net: nn.Module = timm.create_model(
        model, pretrained=False, in_chans=bands, num_classes=classes, **({} if depth is None else {"depth": depth})
    )
    return net


def patches(bands: int, classes: int, model: str, tile: int, patch: int = 16, depth: int | None = None) -> nn.Module:
    """A timm vision transformer, whose position embedding fixes the input size.

    Args:
        tile: edge of the input (pixels), a multiple of ``patch``.
    """
    options = {"img_size": tile, "patch_size": patch, **({} if depth is None else {"depth": depth})}
    net: nn.Module = timm.create_model(model, pretrained=False, in_chans=bands, num_classes=classes, **options)
    return net
