"""What is kept at equal latency: our pruner towards milliseconds beside Torch-Pruning's with each of its criteria, on real weights.

Every contender is cut to the latency that ours reached on this machine, then recovers for the same steps on the same batches. A
seed draws which inputs teach and which judge, the batches and the random criterion.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from timing import THREADS, Clock
from torch import Tensor, nn

from rsedge.compress.prune.plan import count_macs, count_params
from rsedge.compress.prune.pruning import PruneHooks, PruneSettings, PruneTarget, prune
from rsedge.models.structure import removed_blocks, widths_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from real_networks import CASES, Case, Trunk

OURS, WIDTHS = "rsedge: widths and blocks", "rsedge: widths alone"
KINDS = PruneSettings.model_fields["kinds"].default
_FEW = ("channels", "heads", "units", "blocks")
MORE_KINDS: dict[str, tuple[str, ...]] = {
    "channels, heads, units, blocks": _FEW, "head-dims too": (*_FEW, "head-dims"),
    "head-dims and width too": (*_FEW, "head-dims", "width"),
}  # fmt: skip
RATIO, STEPS, BATCH, RATE, GRADIENTS, REFITS = 0.6, 60, 16, 3e-4, 4, 8
SECONDS, JUDGED, HALVINGS, MOST = 0.15, 256, 4, 0.9
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError)
"""What Torch-Pruning raises on networks that it does not take."""


class Material:
    """A case with a seed: the network, its split, batches, and the loss that all contenders share."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.seed = case, seed
        self.known: dict[str, float] = {}
        self.net, x = case.make()
        self.net.eval().requires_grad_(True)
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
        half = len(x) // 2
        self.test, self.train, self.selection = x[half:][:JUDGED], x[half // 4 : half], x[: half // 4]
        self.example = x[:1].clone()
        self.clock = Clock(self.example, SECONDS)
        with torch.no_grad():
            self.scale = float(self.net(self.train).var(0).mean())

    def over(self, target: nn.Module, net: nn.Module) -> float:
        """Time of a network over that of the one all are cut to, asked once of any widths."""
        widths = str(widths_of(net))
        if widths not in self.known:
            found = self.clock.raced({"target": target, "cut": net}, SECONDS)
            self.known[widths] = found.ratio("cut", "target").value
        return self.known[widths]

    def loss(self, net: nn.Module, x: Tensor) -> Tensor:
        """Squared distance to the teacher over the spread of its outputs."""
        with torch.no_grad():
            wanted = self.net(x)
        found: Tensor = (net(x) - wanted).square().mean() / self.scale
        return found

    def batch(self, number: int) -> Tensor:
        rng = np.random.default_rng([self.seed, number])
        return self.train[rng.choice(len(self.train), min(BATCH, len(self.train)), replace=False)]

    def gradients(self, net: nn.Module, number: int) -> Tensor:
        """Losses of a batch (N,) for criteria that want gradients.

        A network at no distance from its teacher has none, so what is asked for has a noise of a tenth of the outputs' spread, the
        same for every contender.
        """
        x = self.batch(number)
        with torch.no_grad():
            wanted = self.net(x)
        noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(number)) * 0.1 * self.scale**0.5
        return (net(x) - wanted - noise).square().mean(1) / self.scale

    @torch.no_grad()
    def likeness(self, net: nn.Module, x: Tensor) -> float:
        """Share of the teacher's variance that the network gives again."""
        wanted = self.net(x)
        return 1 - float((net.eval()(x) - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())

    def recover(self, net: nn.Module) -> None:
        """The same steps for every contender."""
        optimizer = torch.optim.AdamW(net.train().parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
        for number in range(STEPS):
            optimizer.zero_grad()
            self.loss(net, self.batch(1000 + number)).backward()
            optimizer.step()
            schedule.step()
        net.eval()


def ours(material: Material, kinds: tuple[str, ...]) -> nn.Module:
    """Cut in one step; what a recipe's recovery does is left to the bench, for all alike."""
    clock = material.clock
    settings = PruneSettings(
        target=PruneTarget(latency_ratio=RATIO), steps=1, scope="latency", kinds=kinds, min_gain=0.0, max_drop=10.0,
        max_layer_ratio=MOST, taylor_batches=GRADIENTS, refit_batches=REFITS, seed=material.seed,
    )  # fmt: skip
    hooks = PruneHooks(
        score=lambda net: 0.0, latency=clock.latency, compare=clock.compare, recover=lambda net, step: None,
        gradients=lambda net, number: material.gradients(net, number).mean().backward(),
        loss=lambda number: lambda net: float(material.loss(net, material.selection[number::2][:64])),
        time_layers=clock.layers, inputs=material.batch,
    )  # fmt: skip
    return prune(material.net, material.example, settings, hooks)[0]


# -- Torch-Pruning ----------------------------------------------------------------------------------------------------------

CRITERIA: dict[str, Callable[[], Any]] = {
    "random": tp.importance.RandomImportance,
    "magnitude": tp.importance.GroupMagnitudeImportance,
    "LAMP": tp.importance.LAMPImportance,
    "FPGM": tp.importance.FPGMImportance,
    "batch norm scale": tp.importance.BNScaleImportance,
    "Taylor": tp.importance.GroupTaylorImportance,
    "Hessian": tp.importance.GroupHessianImportance,
}


def peers(material: Material, target: nn.Module) -> Iterator[tuple[str, nn.Module | str]]:
    """Each criterion's best cut at most 2 % slower than ``target``, or why there is none.

    Torch-Pruning takes the same share of every layer, or ranks all channels together: the one that is more like the teacher on
    selection before recovery.
    """
    norms = any(isinstance(m, nn.BatchNorm2d) for m in material.net.modules())
    for name in [n for n in CRITERIA if norms or n != "batch norm scale"]:
        cuts: dict[str, nn.Module] = {}
        error = ""
        for mode in ("alike", "global"):
            try:
                found = at_latency(material, name, mode == "global", target)
                if found is not None:
                    cuts[mode] = found
            except FAILURES as problem:
                error = f"{mode}: {type(problem).__name__}: {problem}".splitlines()[0][:200]
        if not cuts:
            yield f"Torch-Pruning: {name}", error or "no cut is as fast"
            continue
        mode = max(cuts, key=lambda m: material.likeness(cuts[m], material.selection))
        yield f"Torch-Pruning: {name}, {mode}", cuts[mode]


def at_latency(material: Material, name: str, everywhere: bool, target: nn.Module) -> nn.Module | None:
    """The smallest cut that is at most 2 % slower than ``target``, by halving the share that goes."""
    low, high, best = 0.0, MOST, None
    for _ in range(HALVINGS):
        share = (low + high) / 2
        net = cut(material, name, everywhere, share)
        if material.over(target, net) <= 1.02:
            best, high = net, share
        else:
            low = share
    return best


def cut(material: Material, name: str, everywhere: bool, share: float) -> nn.Module:
    """Torch-Pruning's pruner, asked as its documentation asks."""
    net, importance = copy.deepcopy(material.net), CRITERIA[name]()
    torch.manual_seed(material.seed)
    fill(net, importance, material)
    seen, example = net, material.example
    if material.case.trunk is not None:
        seen = Trunk(net.get_submodule(material.case.trunk)).eval()
        width = next(m.normalized_shape[0] for m in seen.modules() if isinstance(m, nn.LayerNorm))
        example = torch.zeros(1, 16, width)
    stays = [m for n, m in seen.named_modules() if _is_layer(m) and any(part in n for part in material.case.stays)]
    attention = [m for m in seen.modules() if type(m).__name__ == "Attention"]
    heads = {layer: a.heads for a in attention for layer in a.children() if layer not in stays}
    pruner = tp.pruner.BasePruner(
        seen, example, importance, global_pruning=everywhere, pruning_ratio=share, max_pruning_ratio=MOST, round_to=8,
        ignored_layers=stays, num_heads=heads,
    )  # fmt: skip
    pruner.step()
    with torch.no_grad():
        net.eval()(material.example)
    return net


def fill(net: nn.Module, importance: Any, material: Material) -> None:
    """Gradients, where a criterion wants them: summed over batches, or sample by sample."""
    if isinstance(importance, tp.importance.GroupHessianImportance):
        for loss in material.gradients(net, 0):
            net.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(net)
    elif isinstance(importance, tp.importance.GroupTaylorImportance):
        for number in range(GRADIENTS):
            material.gradients(net, number).mean().backward()


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


# -- one case with one seed ---------------------------------------------------------------------------------------------------


def measured(name: str, seed: int) -> dict[str, Any]:
    """A row per contender: time and size that are left, likeness before and after recovery."""
    material = Material(CASES[name], seed)
    nets: dict[str, nn.Module] = {OURS: ours(material, KINDS)}
    rows: dict[str, dict[str, Any]] = {}
    for way, made in itertools.chain([(WIDTHS, ours(material, KINDS[:-1]))], peers(material, nets[OURS])):
        print(f"  {way}{': ' + made if isinstance(made, str) else ''}", flush=True)
        if isinstance(made, str):
            rows[way] = {"error": made}
        else:
            nets[way] = made
    race = material.clock.raced({"whole": material.net, **nets}, 1.0)
    for way, net in nets.items():
        rows[way] = figures(material, net) | {
            "time": race.ratio(way, "whole").model_dump(), "over_ours": race.ratio(way, OURS).model_dump(),
        }  # fmt: skip
    return {"rows": rows, "ms": race.ms("whole"), "load": race.load.words(), "clock": race.clock, "threads": THREADS}


def by_kinds(name: str, seed: int) -> dict[str, Any]:
    """A row per list of kinds, all cut to the same share of the network's own latency: what is left, likeness before and after
    recovery."""
    material = Material(CASES[name], seed)
    nets = {way: ours(material, kinds) for way, kinds in MORE_KINDS.items()}
    race = material.clock.raced({"whole": material.net, **nets}, 1.0)
    rows = {way: figures(material, net) | {"time": race.ratio(way, "whole").model_dump()} for way, net in nets.items()}
    return {"rows": rows, "ms": race.ms("whole"), "load": race.load.words(), "clock": race.clock, "threads": THREADS}


def figures(material: Material, net: nn.Module) -> Mapping[str, Any]:
    """What is left of a network, which recovers in between."""
    net.requires_grad_(True)
    before = material.likeness(net, material.test)
    material.recover(net)
    return {
        "macs": count_macs(net, material.example) / count_macs(material.net, material.example),
        "params": count_params(net) / count_params(material.net),
        "blocks": len(removed_blocks(net)), "cut": before, "recovered": material.likeness(net, material.test),
    }  # fmt: skip
