"""How much of a cut in multiply-accumulates becomes speed: networks with random weights cut to a half and a quarter of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from timing import THREADS, Clock
from torch import Tensor, nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import KINDS
from rsedge.compress.prune.plan import count_macs
from rsedge.compress.prune.pruning import PruneHooks, PruneRecord, PruneSettings, PruneTarget, prune
from rsedge.data.errors import RequestError
from rsedge.models.structure import removed_blocks

NETWORKS = {
    "ViT-S/16": "vit_small_patch16_224",
    "ResNet-50": "resnet50",
    "Swin-T": "swin_tiny_patch4_window7_224",
    "ConvNeXt-T": "convnext_tiny",
    "ViT-B/16": "vit_base_patch16_224",
}
"""Smallest first."""
SECONDS, RACE_SECONDS, SHOWN = 0.3, 1.5, 3
EXAMPLE = torch.zeros(1, 3, 224, 224)
COMMON: dict[str, Any] = {
    "steps": 1, "importance": "magnitude", "round_to": 16, "max_layer_ratio": 0.9, "min_gain": 0.0, "max_drop": 1.0,
    "damage_batches": 1,
}  # fmt: skip
FEW, ALL = ("channels", "heads", "units"), (*KINDS, "blocks")
WAYS: dict[str, dict[str, Any]] = {
    "heads and units, half of the MACs": {"scope": "uniform", "kinds": FEW, "target": PruneTarget(macs_ratio=0.5)},
    "heads and units, a quarter of the MACs": {"scope": "uniform", "kinds": FEW, "target": PruneTarget(macs_ratio=0.25)},
    "every width, half of the MACs": {"scope": "uniform", "kinds": ALL, "target": PruneTarget(macs_ratio=0.5)},
    "every width, a quarter of the MACs": {"scope": "uniform", "kinds": ALL, "target": PruneTarget(macs_ratio=0.25)},
    "widths and blocks, a quarter of the milliseconds": {
        "scope": "latency", "kinds": ALL, "target": PruneTarget(latency_ratio=0.25),
    },
}  # fmt: skip


def measured(name: str) -> dict[str, Any]:
    """A row per way: MACs and time that are left, and speed-up over MAC cut."""
    torch.manual_seed(0)
    net = timm.create_model(NETWORKS[name], pretrained=False).eval().requires_grad_(False)
    macs, cut, rows, clock = count_macs(net, EXAMPLE), {}, {}, Clock(EXAMPLE, SECONDS)
    for way, settings in ways(net).items():
        print(f"  {way}", flush=True)
        try:
            cut[way] = prune(net, EXAMPLE, PruneSettings(**COMMON, **settings), hooks(net, clock))
        except RequestError as error:
            rows[way] = {"error": str(error)}
    found = clock.raced({"whole": net, **{way: left for way, (left, _) in cut.items()}}, RACE_SECONDS)
    for way, (left, record) in cut.items():
        share, time = count_macs(left, EXAMPLE) / macs, found.ratio(way, "whole")
        rows[way] = {
            "macs": share, "time": time.model_dump(), "realised": [share / t for t in (time.value, time.high, time.low)],
            "blocks": len(removed_blocks(left)), "keeps": keeping(record),
        }  # fmt: skip
    return {
        "rows": rows, "ms": found.ms("whole"), "macs": macs, "load": found.load.words(), "clock": found.clock,
        "threads": THREADS,
    }  # fmt: skip


def ways(net: nn.Module) -> dict[str, dict[str, Any]]:
    """Those that differ: without attention there are no heads apart from every width."""
    if any(g.kind == "heads" for g in find_groups(net, EXAMPLE)):
        return WAYS
    return {way: settings for way, settings in WAYS.items() if settings["kinds"] is ALL}


def keeping(record: PruneRecord) -> list[tuple[str, float, float]]:
    """Layers that take most of what is left, by the table: name, share of the time after the cut, and of it before."""
    whole = [sum(getattr(ms, when) for ms in record.layers.values()) for when in ("after", "before")]
    last = sorted(record.layers.items(), key=lambda item: -item[1].after)[:SHOWN]
    return [(name, ms.after / whole[0], ms.before / whole[1]) for name, ms in last]


def hooks(net: nn.Module, clock: Clock) -> PruneHooks:
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
