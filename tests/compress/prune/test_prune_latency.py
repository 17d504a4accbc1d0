"""Pruning towards milliseconds: the table of layers, the damage of cuts, the knapsack between them, and what is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor, nn

from rsedge.compress.prune.damage import Limits, damaged_groups
from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import Example, remove_channels
from rsedge.compress.prune.knapsack import Block, Knapsack, Widths
from rsedge.compress.prune.layer_times import LatencyTable, layer_shapes, time_layers
from rsedge.compress.prune.pruning import LatencyEstimate, PruneHooks, PruneRecord, PruneSettings, PruneTarget, prune
from rsedge.data.errors import RequestError
from rsedge.models.layer_shape import LayerShape
from rsedge.models.structure import load_model, remove_blocks, removed_blocks, tensors_digest
from rsedge.models.students import build_student
from tests.compress.prune.estimates import by_estimates

EXAMPLE = torch.zeros(1, 4, 32, 32)
UNET = {"bands": 4, "classes": 3, "stem": 16, "encoder": [24, 32], "blocks": [2, 1], "decoder": [32, 16]}
Floats = npt.NDArray[np.float64]


def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_student("slim-unet", UNET).eval()


def vit() -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, in_chans=4, num_classes=3, depth=3, embed_dim=48, num_heads=3
    )
    return net.eval()


NETS = {"unet": unet, "vit": vit}


# -- a machine whose layers take the time of their products, and a tenth beside them -------------------------------------


def shape_ms(shape: LayerShape) -> float:
    if shape.kind == "attention":
        return 2e-6 * math.prod(shape.input) * shape.input[-2]
    depth = 1 if shape.depthwise else shape.cin
    return 1e-6 * shape.positions * shape.out * depth * math.prod(shape.kernel)


def whole_ms(net: nn.Module) -> float:
    shapes = layer_shapes(net, EXAMPLE, find_groups(net, EXAMPLE))
    return sum(shape_ms(shape) + 1e-6 * shape.positions * shape.out for _, shape in shapes)


def clock(net: nn.Module, shapes: Sequence[LayerShape]) -> tuple[float, list[float], Literal["predicted"]]:
    return whole_ms(net), [shape_ms(shape) for shape in shapes], "predicted"


def latency(net: nn.Module) -> LatencyEstimate:
    ms = whole_ms(net)
    return LatencyEstimate(ms=ms, low=ms, high=ms, provenance="predicted")


def distance(whole: nn.Module) -> Callable[[int], Callable[[nn.Module], float]]:
    """Mean squared distance to what the whole network gives, by batch."""

    def batch(number: int) -> Callable[[nn.Module], float]:
        x = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            wanted = whole(x)

        @torch.no_grad()
        def loss(net: nn.Module) -> float:
            return float((net(x) - wanted).square().mean())

        return loss

    return batch


def hooks(net: nn.Module, **changes: Any) -> PruneHooks:
    base: dict[str, Any] = {
        "score": lambda module: 1.0, "latency": latency, "compare": by_estimates(latency), "recover": lambda module, step: None,
        "loss": distance(net), "time_layers": clock, **changes,
    }  # fmt: skip
    return PruneHooks(**base)


def plan(target: PruneTarget, **changes: Any) -> PruneSettings:
    base: dict[str, Any] = {"importance": "magnitude", "scope": "latency", "steps": 1, "damage_batches": 1, **changes}
    return PruneSettings(target=target, **base)


# -- the knapsack --------------------------------------------------------------------------------------------------------


class Apart:
    """Groups and blocks whose times do not depend on each other."""

    def __init__(self, ms: Mapping[str, Floats], kept: Mapping[str, Any], blocks: Mapping[str, float]) -> None:
        self.ms, self.kept_of, self.blocks = ms, kept, blocks

    def total(self, kept: Mapping[str, int], removed: Iterable[str] = ()) -> float:
        groups = sum(float(self._at(g, np.array([kept[g]]))[0]) for g in self.ms)
        return groups + sum(ms for b, ms in self.blocks.items() if b not in set(removed))

    def of_group(
        self, group: str, options: npt.NDArray[np.int64], kept: Mapping[str, int], removed: Iterable[str] = ()
    ) -> Floats:
        return self._at(group, options)

    def of_block(self, block: str, kept: Mapping[str, int]) -> float:
        return self.blocks[block]

    def _at(self, group: str, options: npt.NDArray[np.int64]) -> Floats:
        return np.asarray(np.interp(options, self.kept_of[group][::-1], self.ms[group][::-1]))


def drawn(seed: int) -> tuple[Knapsack, Apart]:
    rng = np.random.default_rng(seed)
    groups, ms = {}, {}
    for i in range(6):
        kept = np.arange(64, 8, -8)
        groups[f"g{i}"] = Widths(kept, np.concatenate([[0.0], np.cumsum(rng.exponential(size=len(kept) - 1))]))
        ms[f"g{i}"] = rng.uniform(0.5, 2.0) * kept / 64.0
    blocks = {f"b{i}": float(rng.uniform(0.2, 1.0)) for i in range(4)}
    times = Apart(ms, {n: w.kept for n, w in groups.items()}, blocks)
    return Knapsack(groups, {b: Block(float(rng.exponential(3.0))) for b in blocks}, times), times


def optimum(knapsack: Knapsack, times: Apart, budget: float) -> float:
    """The least damage that integer programming finds."""
    damage, ms, owner = [], [], []
    for i, (name, widths) in enumerate(knapsack.groups.items()):
        damage += widths.damage.tolist()
        ms += times.ms[name].tolist()
        owner += [i] * len(widths.kept)
    for i, (name, block) in enumerate(knapsack.blocks.items(), start=len(knapsack.groups)):
        damage += [0.0, block.damage]
        ms += [times.blocks[name], 0.0]
        owner += [i, i]
    one_each = (np.array(owner) == np.arange(max(owner) + 1)[:, None]).astype(float)
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(np.array(ms)[None], -np.inf, budget)]
    found = milp(np.array(damage), integrality=np.ones(len(damage)), bounds=Bounds(0, 1), constraints=constraints)
    return float(found.fun)


@pytest.mark.parametrize("seed", range(4))
def test_the_knapsack_is_within_one_step_of_the_optimum(seed: int) -> None:
    knapsack, times = drawn(seed)
    whole = knapsack.ms(knapsack.solve(1e9))
    for share in (0.9, 0.6, 0.4):
        budget = max(share * whole, knapsack.floor_ms())
        found = knapsack.solve(budget)
        assert knapsack.ms(found) <= budget + 1e-9
        step = max(float(np.diff(w.damage).max()) for w in knapsack.groups.values())
        largest = max(step, *(b.damage for b in knapsack.blocks.values()))
        assert optimum(knapsack, times, budget) - 1e-9 <= knapsack.damage(found)
        assert knapsack.damage(found) <= optimum(knapsack, times, budget) + largest


def test_a_budget_under_the_floor_is_refused_with_the_floor() -> None:
    knapsack, _ = drawn(0)
    floor = knapsack.floor_ms()
    assert knapsack.ms(knapsack.solve(floor)) == pytest.approx(floor)
    with pytest.raises(RequestError, match=f"the least that the limits allow is {floor:.3g} ms"):
        knapsack.solve(0.99 * floor)


# -- the table and the damage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_table_knows_the_time_of_any_cut(name: str) -> None:
    net = NETS[name]()
    groups = find_groups(net, EXAMPLE)
    table = LatencyTable(time_layers(net, EXAMPLE, groups, clock), net, groups)
    assert table.total({}) == pytest.approx(whole_ms(net), rel=1e-6)
    free = [g for g in groups if not g.blocked]
    kept = {g.name: max(1, g.channels // 2) for g in free}
    block = {"unet": "encoder.0.2", "vit": "blocks.1"}[name]
    foreseen = table.total(kept, [block])
    remove_channels(net, groups, {g.name: list(range(g.channels - kept[g.name])) for g in free})
    remove_blocks(net, [block])
    assert foreseen == pytest.approx(whole_ms(net), rel=0.02)  # between its points the table is interpolated
    assert table.of_block(block, {}) > 0


def test_damage_rises_with_the_cut_and_dead_channels_cost_nothing() -> None:
    net = vit()
    with torch.no_grad():
        net.get_submodule("blocks.0.mlp.fc2").weight[:, :96] = 0.0  # type: ignore[union-attr, index, operator]
    groups = find_groups(net, EXAMPLE)
    scores: dict[str, Tensor] = {g.name: torch.ones(g.channels, dtype=torch.float64) for g in groups}
    scores["blocks.0.mlp.fc1"][:96] = 0.0
    found = damaged_groups(net, groups, scores, Limits({}, 8, 0.75), distance(net)(0))
    for widths in found.values():
        assert widths.damage[0] == 0 and (np.diff(widths.damage) >= 0).all() and (np.diff(widths.kept) < 0).all()
    first, second = found["blocks.0.mlp.fc1"], found["blocks.1.mlp.fc1"]
    assert first.damage[first.kept >= 96].max() < 1e-3 * second.damage[-1]


# -- pruning --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_a_latency_is_reached_by_widths_and_whole_blocks(name: str, tmp_path: Path) -> None:
    net = NETS[name]()
    before = tensors_digest(net)
    with torch.no_grad():  # a block that does next to nothing
        for parameter in net.get_submodule({"unet": "encoder.0.2", "vit": "blocks.1"}[name]).parameters():
            parameter.mul_(1e-3)
    chosen = plan(PruneTarget(latency_ratio=0.5), min_gain=0.0)
    pruned, record = prune(net, EXAMPLE, chosen, hooks(net), workdir=tmp_path)
    assert record.outcome == "applied" and record.after.latency.ms <= 0.52 * record.before.latency.ms
    assert {"unet": "encoder.0.2", "vit": "blocks.1"}[name] in record.removed_blocks
    assert tuple(removed_blocks(pruned)) == record.removed_blocks == record.steps[0].blocks
    assert sum(ms.before for ms in record.layers.values()) == pytest.approx(record.before.latency.ms, rel=1e-3)
    gone = [n for n in record.layers if any(n.startswith(f"{b}.") for b in record.removed_blocks)]
    assert gone and all(record.layers[n].after == 0 for n in gone)
    assert PruneRecord.model_validate_json(record.model_dump_json()) == record
    again = load_model(tmp_path / "step-01", lambda *_: NETS[name]())
    x = torch.randn(1, 4, 32, 32)
    assert torch.equal(again(x), pruned(x))
    resumed, same = prune(net, EXAMPLE, chosen, hooks(net), workdir=tmp_path)
    assert same.layers == record.layers and tensors_digest(resumed) == tensors_digest(pruned) != before


def test_of_a_network_of_attention_one_block_stays() -> None:
    """Without any it would be looked through as another kind of network, which fails."""
    net = vit()
    limits = {"max_layer_ratio": 0.9, "min_gain": 0.0, "steps": 2}
    with pytest.raises(RequestError, match="leave is") as refused:
        prune(net, EXAMPLE, plan(PruneTarget(latency_ratio=1e-6), **limits), hooks(net))
    floor = float(str(refused.value).partition("leave is ")[2].partition(" of")[0])
    pruned, record = prune(net, EXAMPLE, plan(PruneTarget(latency_ratio=floor), **limits), hooks(net))
    assert record.reached and len(record.removed_blocks) == len(net.blocks) - 1
    assert pruned(torch.rand(1, 4, 32, 32)).shape[0] == 1


def test_where_kinds_has_no_blocks_none_goes() -> None:
    net = vit()
    _, record = prune(net, EXAMPLE, plan(PruneTarget(latency_ratio=0.6), kinds=("heads", "units")), hooks(net))
    assert record.reached and not record.removed_blocks


@pytest.mark.parametrize(
    ("target", "scope"),
    [({"latency_ratio": 0.01}, "latency"), ({"macs_ratio": 0.01}, "global"), ({"params_ratio": 0.01}, "uniform")],
)
def test_what_the_limits_cannot_reach_is_refused_with_the_floor(target: dict[str, float], scope: Any) -> None:
    net = unet()
    with pytest.raises(RequestError, match=rf"prune.target.{next(iter(target))}: 0.01 .* is 0\.\d+ of the .*raise"):
        prune(net, EXAMPLE, plan(PruneTarget(**target), scope=scope), hooks(net))


@pytest.mark.parametrize(
    ("field", "scope"),
    [("latency_ratio", "latency"), ("latency_ms", "latency"), ("macs_ratio", "global"), ("params_ratio", "uniform")],
)
def test_the_floor_that_is_named_can_be_asked_for(field: str, scope: Any) -> None:
    net = unet()
    with pytest.raises(RequestError) as refused:
        prune(net, EXAMPLE, plan(PruneTarget(**{field: 1e-6}), scope=scope), hooks(net))
    named = re.search(r"leave is ([\d.e-]+) of the \w+(?:, (?:measured|predicted) ([\d.e-]+) ms)?;", str(refused.value))
    assert named is not None
    floor = float(named.group(2 if field == "latency_ms" else 1))
    _, record = prune(net, EXAMPLE, plan(PruneTarget(**{field: floor}), scope=scope, min_gain=0.0), hooks(net))
    assert record.reached


def test_the_floor_of_a_board_is_that_of_the_smallest_network_and_not_of_the_table() -> None:
    """What a board takes beside the layers (launches) does not fall with their widths; the table spreads it over their values."""

    def launches(net: nn.Module) -> LatencyEstimate:
        ms = whole_ms(net) + 30 * whole_ms(unet())
        return LatencyEstimate(ms=ms, low=ms, high=ms, provenance="predicted")

    net = unet()
    told = hooks(
        net,
        latency=launches,
        compare=by_estimates(launches),
        time_layers=lambda n, s: (launches(n).ms, *clock(n, s)[1:]),
    )
    with pytest.raises(
        RequestError, match=r"latency_ratio: 0.5 cannot be reached; .* leave is 0\.9\d+ of the latency, predicted "
    ):
        prune(net, EXAMPLE, plan(PruneTarget(latency_ratio=0.5)), told)


@pytest.mark.parametrize("scope", ["latency", "global"])
def test_where_no_cut_is_faster_the_way_that_is_named_is_another(scope: Any) -> None:
    def fixed(net: nn.Module) -> LatencyEstimate:
        return LatencyEstimate(ms=0.4, low=0.3, high=0.5, provenance="predicted")

    net = unet()
    with pytest.raises(
        RequestError,
        match=r"latency_ms: 0.1 .* leave is 1 of the latency, predicted 0.4 ms; leave prune out, or name a macs_ratio",
    ):
        prune(
            net,
            EXAMPLE,
            plan(PruneTarget(latency_ms=0.1), scope=scope),
            hooks(net, latency=fixed, compare=by_estimates(fixed)),
        )


def test_latency_plans_need_a_latency_a_loss_and_times() -> None:
    with pytest.raises(ValidationError, match="give target: latency_ms or latency_ratio"):
        plan(PruneTarget(macs_ratio=0.5))
    net = vit()
    with pytest.raises(RequestError, match="needs a loss"):
        prune(net, EXAMPLE, plan(PruneTarget(latency_ratio=0.5)), hooks(net, loss=None))
    with pytest.raises(RequestError, match="not finite before any cut"):
        prune(net, EXAMPLE, plan(PruneTarget(latency_ratio=0.5)), hooks(net, loss=lambda i: lambda m: float("nan")))


def test_shapes_are_those_of_every_layer() -> None:
    net: Example | Any = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.ConvTranspose2d(8, 4, 2, 2),
    )
    shapes = [shape for _, shape in layer_shapes(net, EXAMPLE, [])]
    assert [s.places for s in shapes] == [(16, 16), (16, 16), (32, 32)]
    assert [s.depthwise for s in shapes] == [False, True, False]
    assert shapes[1].resized(4, 4).groups == 4 and shapes[2].kind == "transposed"
