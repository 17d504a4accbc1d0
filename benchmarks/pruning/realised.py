"""How much of a cut in multiply-accumulates becomes speed: networks with random weights cut to a quarter of their MACs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from timing import Clock, raced
from torch import Tensor, nn

from rsedge.compress.prune.plan import count_macs
from rsedge.compress.prune.pruning import PruneHooks, PruneSettings, PruneTarget, prune
from rsedge.data.errors import RequestError
from rsedge.models.structure import removed_blocks

NETWORKS = {
    "ViT-B/16": "vit_base_patch16_224",
    "ResNet-50": "resnet50",
    "Swin-T": "swin_tiny_patch4_window7_224",
    "ConvNeXt-T": "convnext_tiny",
}
QUARTER, SECONDS, RACE_SECONDS = 0.25, 0.3, 1.5
EXAMPLE = torch.zeros(1, 3, 224, 224)
COMMON: dict[str, Any] = {
    "steps": 1, "importance": "magnitude", "round_to": 16, "max_layer_ratio": 0.9, "min_gain": 0.0, "max_drop": 1.0,
    "damage_batches": 1,
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "widths alike, to a quarter of the MACs": {"scope": "uniform", "target": PruneTarget(macs_ratio=QUARTER)},
    "widths and blocks, to a quarter of the milliseconds": {
        "scope": "latency",
        "target": PruneTarget(latency_ratio=QUARTER),
    },
}


def measured(name: str) -> dict[str, Any]:
    """A row per way: MACs and time that are left, and speed-up over MAC cut."""
    torch.manual_seed(0)
    net = timm.create_model(NETWORKS[name], pretrained=False).eval().requires_grad_(False)
    macs, cut, rows = count_macs(net, EXAMPLE), {}, {}
    for way, settings in WAYS.items():
        print(f"  {way}", flush=True)
        try:
            cut[way] = prune(net, EXAMPLE, PruneSettings(**COMMON, **settings), hooks(net))[0]
        except RequestError as error:
            rows[way] = {"error": str(error)}
    found = raced({"whole": net, **cut}, EXAMPLE, RACE_SECONDS)
    for way, left in cut.items():
        share, time = count_macs(left, EXAMPLE) / macs, found.ratio(way, "whole")
        rows[way] = {
            "macs": share, "time": time.model_dump(), "realised": [share / t for t in (time.value, time.high, time.low)],
            "blocks": len(removed_blocks(left)),
        }  # fmt: skip
    return {"rows": rows, "ms": found.ms("whole"), "macs": macs, "load": found.load.words(), "clock": found.clock}


def hooks(net: nn.Module) -> PruneHooks:
    clock = Clock(EXAMPLE, SECONDS)
    return PruneHooks(
        score=lambda module: 1.0, latency=clock.latency, compare=clock.compare, recover=lambda module, step: None,
        loss=lambda number: distance(net, torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(number))),
        time_layers=clock.layers,
    )  # fmt: skip


def distance(net: nn.Module, x: Tensor) -> Callable[[nn.Module], float]:
    """Mean squared distance of outputs to those of the whole network."""
    with torch.no_grad():
        wanted = net(x)

    @torch.no_grad()
    def loss(other: nn.Module) -> float:
        return float((other(x) - wanted).square().mean())

    return loss
