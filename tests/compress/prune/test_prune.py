"""Pruning keeps networks whole, widths hardware-friendly, and only steps that pay."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from rsedge.compress.prune.finding import find_groups
from rsedge.compress.prune.groups import explain_groups, remove_channels
from rsedge.compress.prune.importance import channel_scores
from rsedge.compress.prune.plan import CostModel, count_macs, count_params, plan_removal
from rsedge.compress.prune.pruning import (
    LatencyEstimate,
    LatencyRatio,
    PruneHooks,
    PruneRecord,
    PruneSettings,
    PruneTarget,
    prune,
)
from rsedge.compress.standing import Standing, lost
from rsedge.data.errors import RequestError
from rsedge.models.structure import load_model, save_model, tensors_digest, widths_of
from rsedge.models.students import build_student
from tests.compress.prune.estimates import by_estimates

EXAMPLE = torch.zeros(1, 4, 32, 32)
SMALL = {"bands": 4, "classes": 3, "stem": 16, "encoder": [24, 32], "blocks": [1, 1], "decoder": [32, 16]}
MOBILE = {"bands": 4, "classes": 3, "encoder": "tu-mobilenetv4_conv_small_050", "decoder": [32, 24, 16, 16, 16]}


def student(seed: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    return lively(build_student("slim-unet", {**SMALL, **changes}))


def lively(net: nn.Module) -> nn.Module:
    """Batch norms with statistics and scales of their own, as after training."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor, low, high in ((m.weight, 0.2, 1.5), (m.bias, -0.2, 0.2), (m.running_mean, -0.1, 0.1)):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
    return net.eval()


def latency_by_macs(module: nn.Module) -> LatencyEstimate:
    """A machine whose time is the multiply-accumulates plus a fixed part."""
    ms = 0.2 + count_macs(module, EXAMPLE) / 1e6
    return LatencyEstimate(ms=ms, low=ms * 0.9, high=ms * 1.1, provenance="predicted")


def nothing(module: nn.Module, step: int) -> None:
    """No recovery."""


def layer_of(net: nn.Module, name: str) -> Any:
    return net.get_submodule(name)


def full_score(module: nn.Module) -> float:
    return 1.0


def hooks(**changes: Any) -> PruneHooks:
    base: dict[str, Any] = {"score": full_score, "latency": latency_by_macs, "recover": nothing, **changes}
    return PruneHooks(**{"compare": by_estimates(base["latency"]), **base})


def plan(target: PruneTarget, **changes: Any) -> PruneSettings:
    return PruneSettings(target=target, **{"importance": "magnitude", "steps": 2, **changes})


# -- groups ---------------------------------------------------------------------------------------------------------


def test_residual_and_skip_channels_are_coupled_and_explained() -> None:
    groups = {g.name: g for g in find_groups(student(), EXAMPLE, ["head"])}
    residual = groups["encoder.0.0.0"]
    assert {m.layer for m in residual.members if m.side == "out"} == {"encoder.0.0.0", "encoder.0.1.conv2.0"}
    assert {"encoder.1.0.0", "decoder.0.0"} <= {m.layer for m in residual.members if m.side == "in"}
    text = explain_groups(groups.values())
    assert "encoder.0.0.0: 24 channels, can be pruned" in text
    assert "made together by" in text and "Concat" in text


def test_head_and_ignored_layers_stay() -> None:
    groups = {g.name: g for g in find_groups(student(), EXAMPLE, ["encoder.1"])}
    assert "model's output" in (groups["head"].blocked or "")
    assert "ignored" in (groups["encoder.1.0.0"].blocked or "")
    assert groups["stem.0"].blocked is None
    with pytest.raises(RequestError, match="no layer 'nowhere'"):
        find_groups(student(), EXAMPLE, ["nowhere"])
    with pytest.raises(RequestError, match=r"no layer 'stm\.0' \(nearest: 'stem\.0'\)"):
        find_groups(student(), EXAMPLE, ["stm.0"])


@pytest.mark.parametrize("skips", ["concat", "sum"])
def test_removal_equals_zeroing_the_channels(skips: str) -> None:
    """Slicing out channels whose weights and biases are zero does not change the output."""
    net, x = student(skips=skips), torch.randn(1, 4, 64, 64)
    groups = find_groups(net, EXAMPLE)
    removal = {g.name: list(range(0, g.channels, 3)) for g in groups if not g.blocked}
    zeroed = copy.deepcopy(net)
    with torch.no_grad():
        for g in groups:
            for m in g.members:
                layer: Any = zeroed.get_submodule(m.layer)
                rows = [i for i, r in zip(m.index, m.root, strict=True) if r in removal.get(g.name, [])]
                if m.side != "in":
                    layer.weight[rows] = 0.0
                    if layer.bias is not None:
                        layer.bias[rows] = 0.0
    sliced = copy.deepcopy(net)
    remove_channels(sliced, groups, removal)
    assert count_params(sliced) < 0.6 * count_params(net)
    torch.testing.assert_close(sliced(x), zeroed(x), atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    ratio=st.floats(0.05, 0.95),
    importance=st.sampled_from(["magnitude", "bn-scale", "lamp", "random"]),
    scope=st.sampled_from(["uniform", "global", "global-per-cost"]),
    round_to=st.sampled_from([1, 4, 8, 16]),
    metric=st.sampled_from(["macs", "params"]),
    skips=st.sampled_from(["concat", "sum"]),
)
def test_any_cut_leaves_a_working_network(
    ratio: float, importance: Any, scope: Any, round_to: int, metric: Any, skips: str
) -> None:
    net = student(skips=skips)
    groups = find_groups(net, EXAMPLE)
    cost = CostModel(net, EXAMPLE, groups, metric)
    scores = channel_scores(net, groups, importance)
    removal = plan_removal(cost, scores, ratio * cost.total, scope=scope, round_to=round_to)
    before = widths_of(net)
    remove_channels(net, groups, removal)
    assert net(torch.rand(2, 4, 32, 32)).shape == (2, 3, 32, 32)
    found = count_macs(net, EXAMPLE) if metric == "macs" else count_params(net)
    assert found == pytest.approx(cost.cost({n: len(r) for n, r in removal.items()}))
    for name, entry in widths_of(net).items():
        if entry["kind"] == "conv" and entry["out"] != before[name]["out"]:
            assert entry["out"] % round_to == 0
            assert entry["out"] >= 0.25 * before[name]["out"]


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_mobilenet_unet_prunes_depthwise_groups(importance: Any) -> None:
    net = lively(build_student("smp-unet", MOBILE))

    def gradients(module: nn.Module, batch: int) -> None:
        torch.manual_seed(batch)
        module(torch.randn(2, 4, 32, 32)).square().mean().backward()

    chosen = plan(PruneTarget(macs_ratio=0.6), importance=importance, taylor_batches=2)
    pruned, record = prune(net, EXAMPLE, chosen, hooks(gradients=gradients))
    assert record.reached and record.outcome == "applied"
    assert record.after.macs <= 0.6 * record.before.macs
    assert pruned(torch.rand(1, 4, 32, 32)).shape == (1, 3, 32, 32)
    depthwise = [m for m in pruned.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert all(m.groups == m.in_channels == m.out_channels for m in depthwise)


def test_vit_loses_heads_and_mlp_units_and_keeps_its_width() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, in_chans=4, num_classes=3, depth=2, embed_dim=48, num_heads=3
    )
    pruned, record = prune(net, EXAMPLE, plan(PruneTarget(params_ratio=0.8), scope="uniform"), hooks())
    assert record.reached
    assert pruned(torch.rand(2, 4, 32, 32)).shape == (2, 3)
    before, after = widths_of(net), widths_of(pruned)
    changed = {n for n in before if before[n] != after[n]}
    inside = {
        f"blocks.{i}.{part}"
        for i in range(2)
        for part in ("mlp.fc1", "mlp.fc2", "attn.qkv", "attn.proj", "attn.num_heads")
    }
    assert changed and changed <= inside
    for i in range(2):
        assert after[f"blocks.{i}.mlp.fc1"]["out"] % 8 == 0
        assert after[f"blocks.{i}.mlp.fc2"]["out"] == after[f"blocks.{i}.attn.proj"]["out"] == 48


def test_grouped_convolutions_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1))
    groups = {g.name: g for g in find_groups(net, EXAMPLE)}
    assert "grouped convolution" in (groups["0"].blocked or "")
    assert groups["2"].blocked is None


# -- importance -----------------------------------------------------------------------------------------------------


def test_criteria_find_the_dead_channels() -> None:
    net = student()
    dead = [1, 5, 9]
    with torch.no_grad():
        conv, norm = layer_of(net, "stem.0"), layer_of(net, "stem.1")
        for tensor in (conv.weight, norm.weight, norm.bias):
            tensor[dead] = 0.0
        for reader in ("encoder.0.0.0", "decoder.1.0"):
            weight = layer_of(net, reader).weight
            start = weight.shape[1] - 16 if reader.startswith("decoder") else 0
            weight[:, [start + d for d in dead]] = 0.0
    groups = find_groups(net, EXAMPLE)

    def gradients(module: nn.Module, batch: int) -> None:
        torch.manual_seed(batch)
        module(torch.randn(2, 4, 64, 64)).square().mean().backward()

    for importance in ("magnitude", "bn-scale", "lamp", "taylor"):
        scores = channel_scores(net, groups, importance, gradients=gradients, batches=2)["stem.0"]  # type: ignore[arg-type]
        assert sorted(torch.argsort(scores)[:3].tolist()) == dead, importance
        assert float(scores[dead].max()) == pytest.approx(0.0, abs=1e-12)


def test_taylor_predicts_loss_change_better_than_random() -> None:
    """The channels Taylor calls unimportant cost less loss than those it calls important."""
    net, x = student(), torch.randn(4, 4, 64, 64)
    goal = net(x).detach()

    def loss(module: nn.Module) -> Tensor:
        out: Tensor = (module(x) - 1.1 * goal).square().mean()
        return out

    def gradients(module: nn.Module, batch: int) -> None:
        loss(module).backward()  # type: ignore[no-untyped-call]

    groups = find_groups(net, EXAMPLE)
    scores = channel_scores(net, groups, "taylor", gradients=gradients, batches=1)
    order = torch.argsort(scores["decoder.1.0"]).tolist()
    low, high = copy.deepcopy(net), copy.deepcopy(net)
    remove_channels(low, groups, {"decoder.1.0": order[:6]})
    remove_channels(high, groups, {"decoder.1.0": order[-6:]})
    assert loss(low).item() < loss(high).item()


def test_taylor_without_gradients_is_refused() -> None:
    with pytest.raises(RequestError, match="needs gradients"):
        prune(student(), EXAMPLE, plan(PruneTarget(macs_ratio=0.5), importance="taylor"), hooks())
    with pytest.raises(RequestError, match="left no gradient"):
        channel_scores(student(), find_groups(student(), EXAMPLE), "taylor", gradients=lambda m, b: None)


# -- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [PruneTarget(macs_ratio=0.5), PruneTarget(params_ratio=0.5), PruneTarget(latency_ratio=0.6)]
)
def test_targets_are_reached_in_steps(target: PruneTarget) -> None:
    net = student()
    untouched = tensors_digest(net)
    pruned, record = prune(net, EXAMPLE, plan(target, steps=3), hooks())
    assert record.reached and record.outcome == "applied"
    assert [s.outcome for s in record.steps] == ["applied"] * len(record.steps)
    sizes = [record.before, *(s.after for s in record.steps)]
    assert all(a.params > b.params and a.macs > b.macs for a, b in itertools.pairwise(sizes))  # type: ignore[union-attr]
    assert record.after.params == count_params(pruned) and record.after.macs == count_macs(pruned, EXAMPLE)
    assert record.widths == widths_of(pruned)
    assert tensors_digest(net) == untouched
    assert PruneRecord.model_validate_json(record.model_dump_json()) == record


def test_steps_are_judged_by_the_comparison_alone() -> None:
    """The machine slows down meanwhile; only what was taken side by side says what a cut brings."""
    calls = itertools.count()

    def drifting(module: nn.Module) -> LatencyEstimate:
        ms = latency_by_macs(module).ms * 1.5 ** next(calls)
        return LatencyEstimate(ms=ms, low=ms, high=ms, provenance="measured")

    compare = by_estimates(latency_by_macs)
    chosen = plan(PruneTarget(latency_ratio=0.7), steps=4)
    _, record = prune(student(), EXAMPLE, chosen, hooks(latency=drifting, compare=compare))
    assert record.reached and record.outcome == "applied"
    assert record.latency_ratio <= 0.7
    assert record.after.latency.ms == pytest.approx(record.latency_ratio * record.before.latency.ms)
    assert next(calls) == 1


def noisy(seed: int, noise: float) -> Any:
    """Measured ratios with noise, beside the prediction that plans."""
    rng = np.random.default_rng(seed)

    def compare(before: nn.Module, candidate: nn.Module) -> LatencyRatio:
        true = latency_by_macs(candidate).ms / latency_by_macs(before).ms
        value = true * (1 + noise * rng.uniform(-1, 1))
        return LatencyRatio(
            value=value, low=value * (1 - noise), high=value * (1 + noise), planned=true, provenance="measured",
            note="beside a busy process",
        )  # fmt: skip

    return compare


@pytest.mark.parametrize("target", [PruneTarget(latency_ratio=0.6), PruneTarget(latency_ms=2.0)])
def test_noise_of_the_measurement_changes_neither_cuts_nor_decisions(target: PruneTarget) -> None:
    records = [
        prune(student(), EXAMPLE, plan(target, steps=3), hooks(compare=noisy(seed, 0.04)))[1] for seed in range(4)
    ]
    assert len({str([(s.outcome, s.removed) for s in r.steps]) for r in records}) == 1
    assert len({r.latency_ratio for r in records}) == 4
    assert records[0].outcome == "applied" and "beside a busy process" in records[0].steps[0].reason


def test_step_without_latency_gain_is_rolled_back_before_recovery() -> None:
    def flat(module: nn.Module) -> LatencyEstimate:
        return LatencyEstimate(ms=5.0, low=4.9, high=5.1, provenance="measured")

    recovered: list[int] = []
    net = student()
    pruned, record = prune(
        net,
        EXAMPLE,
        plan(PruneTarget(macs_ratio=0.5)),
        hooks(latency=flat, recover=lambda m, s: recovered.append(s)),
    )
    assert record.outcome == "rejected" and not record.reached
    assert {s.outcome for s in record.steps} == {"rejected"}
    assert "no gain: measured latency" in record.steps[0].reason
    assert record.steps[0].after is not None and record.steps[0].after.macs < record.before.macs
    assert recovered == []
    assert tensors_digest(pruned) == tensors_digest(net)


def test_step_that_costs_too_much_score_is_rolled_back_and_the_next_is_smaller() -> None:
    full = count_macs(student(), EXAMPLE)

    def score(module: nn.Module) -> float:
        return 0.9 if count_macs(module, EXAMPLE) > 0.7 * full else 0.5

    chosen = plan(PruneTarget(macs_ratio=0.3), steps=5, round_to=1)
    pruned, record = prune(student(), EXAMPLE, chosen, hooks(score=score))
    outcomes = [s.outcome for s in record.steps]
    assert "applied" in outcomes and "rejected" in outcomes
    assert count_macs(pruned, EXAMPLE) > 0.7 * full
    assert record.after.score == 0.9 and not record.reached
    rejected = [s for s in record.steps if s.outcome == "rejected"]
    assert "under the unpruned" in rejected[0].reason
    aims = [s.aim or 0.0 for s in rejected]
    assert aims == sorted(aims)


@pytest.mark.parametrize(("before", "kept"), [(0.0, False), (0.3, True), (0.1, False)])
def test_a_cut_that_loses_what_gates_ask_is_rolled_back_whatever_its_score(before: float, kept: bool) -> None:
    """Where the unpruned network is as far from its gates already, the cut is not to blame."""
    full = count_macs(student(), EXAMPLE)

    def standing(module: nn.Module) -> Standing:
        whole = count_macs(module, EXAMPLE) == full
        return Standing(shortfall=before if whole else 0.3, reason="" if whole else "kappa 0.07 under the teacher's")

    pruned, record = prune(student(), EXAMPLE, plan(PruneTarget(macs_ratio=0.5)), hooks(standing=standing))
    assert (record.outcome == "applied") == (count_macs(pruned, EXAMPLE) < full) == kept
    assert kept or "loses on selection: kappa 0.07" in record.steps[0].reason


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (0.5, 0.4, True),  # the gate that was missed is missed by less
        (0.5, 0.6, False),
        (0.0, 0.0, True),
    ],
)
def test_a_gate_that_was_missed_may_be_missed_and_no_other(before: float, after: float, kept: bool) -> None:
    def standing(shortfall: float, *more: str) -> Standing:
        return Standing(shortfall=shortfall, missed=(("kappa",) if shortfall else ()) + more, reason="words")

    assert (lost(standing(before), standing(after)) is None) == kept
    assert lost(standing(before), standing(before, "agreement")) == "loses on selection: words"
    assert lost(None, standing(after)) is None and lost(standing(before), None) is None


def test_score_of_nan_is_a_rejection() -> None:
    values = iter([0.9, float("nan"), float("nan")])
    _, record = prune(student(), EXAMPLE, plan(PruneTarget(macs_ratio=0.5)), hooks(score=lambda m: next(values)))
    assert record.outcome == "rejected"


def jitter(module: nn.Module, step: int) -> None:
    """A recovery that trains: random, so that only the right seed gives the same weights."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p), alpha=0.01)


def test_same_seed_gives_the_same_network_and_killed_runs_go_on(tmp_path: Path) -> None:
    chosen = plan(PruneTarget(macs_ratio=0.4), steps=3, importance="random", seed=7)
    whole, record = prune(student(), EXAMPLE, chosen, hooks(recover=jitter))

    def killed(module: nn.Module, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt
        jitter(module, step)

    with pytest.raises(KeyboardInterrupt):
        prune(student(), EXAMPLE, chosen, hooks(recover=killed), workdir=tmp_path, factory="slim-unet", kwargs=SMALL)
    steps_run: list[int] = []

    def noted(module: nn.Module, step: int) -> None:
        steps_run.append(step)
        jitter(module, step)

    resumed, again = prune(
        student(), EXAMPLE, chosen, hooks(recover=noted), workdir=tmp_path, factory="slim-unet", kwargs=SMALL
    )
    assert steps_run == [3]
    assert tensors_digest(resumed) == tensors_digest(whole)
    assert [s.after for s in again.steps] == [s.after for s in record.steps]
    kept = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert len(kept) == 1
    assert tensors_digest(load_model(kept[0], build_student)) == tensors_digest(whole)

    other, _ = prune(student(1), EXAMPLE, chosen, hooks(recover=jitter), workdir=tmp_path)
    assert tensors_digest(other) != tensors_digest(whole)  # other weights: the old state is not taken up


def test_pruned_network_is_saved_and_rebuilt_bit_equal(tmp_path: Path) -> None:
    pruned, _ = prune(student(), EXAMPLE, plan(PruneTarget(params_ratio=0.4)), hooks())
    save_model(pruned, tmp_path, "slim-unet", SMALL)
    loaded, x = load_model(tmp_path, build_student), torch.rand(1, 4, 64, 64)
    assert torch.equal(loaded(x), pruned(x))


def test_target_must_be_one_and_possible() -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        PruneTarget(latency_ms=1.0, macs_ratio=0.5)
    with pytest.raises(ValidationError, match="exactly one"):
        PruneTarget()
    _, record = prune(student(), EXAMPLE, plan(PruneTarget(latency_ms=1e6)), hooks())
    assert record.outcome == "skipped" and record.reached and "unpruned" in record.reason
    tiny = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 2, 1))
    with pytest.raises(
        RequestError, match=r"no channel group .*, those that could are no wider than round_to: 8:\n0: 8 chan"
    ):
        prune(tiny, EXAMPLE, plan(PruneTarget(macs_ratio=0.5)), hooks())


def test_unreachable_target_stops_with_a_reason() -> None:
    def clocked(module: nn.Module) -> LatencyEstimate:  # only of predictions a floor is known before
        return latency_by_macs(module).model_copy(update={"provenance": "measured"})

    _, record = prune(student(), EXAMPLE, plan(PruneTarget(latency_ratio=0.01), steps=6), hooks(latency=clocked))
    assert not record.reached
    assert record.steps[-1].outcome == "skipped" and "no group can lose more" in record.steps[-1].reason
    assert record.outcome == "applied"


def test_frozen_layers_and_modes_stay_as_they_were() -> None:
    net = student()
    layer_of(net, "stem.0").weight.requires_grad_(False)
    net.train()
    net.get_submodule("stem.1").eval()
    find_groups(net, EXAMPLE)
    assert not layer_of(net, "stem.0").weight.requires_grad
    assert net.training and not net.get_submodule("stem.1").training
