"""Small networks with attention, with weights and norms as after training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsedge.models.students.series import SeriesTransformer

timm = pytest.importorskip("timm")
IMAGE, SERIES = torch.zeros(1, 4, 32, 32), torch.zeros(1, 6, 5)
Nets = dict[str, tuple[Callable[[], nn.Module], Tensor]]


def vit(**changes: Any) -> nn.Module:
    base = {
        "img_size": 32,
        "patch_size": 8,
        "in_chans": 4,
        "num_classes": 3,
        "depth": 2,
        "embed_dim": 48,
        "num_heads": 3,
    }
    return timm.create_model("vit_tiny_patch16_224", **base | changes)  # type: ignore[no-any-return]


def swin() -> nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, in_chans=4, num_classes=3, depths=(2, 1),
        embed_dim=32, num_heads=(2, 4),
    )  # type: ignore[no-any-return]  # fmt: skip


def series() -> nn.Module:
    return SeriesTransformer(bands=5, classes=3, frames=6, dim=32, depth=2, heads=2)


NETS: Nets = {"vit": (vit, IMAGE), "swin": (swin, IMAGE), "series": (series, SERIES)}


def network(name: str, nets: Nets = NETS) -> tuple[nn.Module, Tensor]:
    """A network and an example of its input."""
    make, example = nets[name]
    torch.manual_seed(0)
    net = make().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net, example
