"""What passes is said by the gates; what does not pass is trained, then left in float in part, then rejected with figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.int8 import Hooks, Quantized, QuantizeRecord, to_int8
from rsedge.compress.quantize.ptq import Calibration, PtqSettings
from rsedge.compress.quantize.qat import QatRecord, QatSettings
from rsedge.compress.quantize.revert import revert
from rsedge.compress.quantize.search import Fastest, Ground, SearchSettings, Trial, attempt, search
from rsedge.data.errors import RequestError

FAST, MIXED, MINMAX = PtqSettings(), PtqSettings(preset="mixed"), PtqSettings(range_estimator="minmax")
LAYERS = tuple(f"layer {i}" for i in range(20))
TILES: Any = ["a tile"]


@dataclass(frozen=True)
class Model:
    """A pretended quantized model: what it loses in likeness and in its gate's figure."""

    settings: PtqSettings
    loss: float
    bytes: int = 100


Losses = Callable[[PtqSettings, Any], float]


def pretended(losses: Losses, gate: float = 1.0, times: Mapping[PtqSettings, float] | None = None) -> Ground[Model]:
    """A machine on which a model loses ``losses(settings, tiles)``; the gate asks for at most ``gate`` of it."""

    def accept(model: Model) -> Acceptance:
        over = max(0.0, model.loss - gate)
        words = f"kappa max_drop {model.loss:.3f}, allowed {gate:g}"
        return Acceptance(
            score=1 - model.loss, holds=not over, shortfall=over, reason=words, gates={"kappa": model.loss}
        )

    def fastest(models: Mapping[str, tuple[Model, Trial]]) -> Fastest:
        took = {n: (times or {}).get(m.settings, 1.0) for n, (m, _) in models.items()}
        return Fastest(min(took, key=lambda n: took[n]), "fastest", took)

    return Ground(
        lambda tiles, chosen: Model(chosen, losses(chosen, tiles)), accept, lambda m: m.bytes, fastest, LAYERS
    )


def by_setting(**values: float) -> Losses:
    return lambda chosen, _: values[chosen.preset if chosen.range_estimator == "default" else chosen.range_estimator]


def limit(max_drop: float = 1.0, reference: Acceptance | None = None) -> Limit:
    return Limit(reference or Acceptance(score=1.0), max_drop)


def worked(ground: Ground[Model], asked: Limit | None = None, **more: Any) -> Quantized[Model]:
    record = Calibration(sha256="0", tiles=1)
    chosen = more.pop("settings", SearchSettings())
    return to_int8(
        nn.Identity(), lambda net: ground, TILES, more.pop("planned", [FAST, MIXED]), asked or limit(), chosen, record,
        "onnxruntime", **more,
    )  # fmt: skip


# -- search ---------------------------------------------------------------------------------------------------------


def test_the_gate_decides_though_likeness_is_fine() -> None:
    """What was seen: three candidates within the limit on likeness, of which the fastest failed its gate."""
    made = worked(pretended(by_setting(performance=0.05, mixed=0.01), gate=0.02, times={FAST: 1.0, MIXED: 2.0}))
    assert [t.outcome for t in made.record.trials] == ["missed", "passed"]
    assert made.record.outcome == "applied" and made.record.chosen == MIXED
    assert "kappa max_drop 0.050" in made.record.trials[0].reason


def test_the_limit_on_likeness_holds_beside_the_gate() -> None:
    made = worked(pretended(by_setting(performance=0.05, mixed=0.01)), limit(0.02))
    assert [t.outcome for t in made.record.trials] == ["missed", "passed"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0.5, 5)), min_size=3, max_size=3), st.floats(0.001, 0.1))
def test_what_is_chosen_passes_if_anything_does_and_nothing_that_passes_is_faster(
    values: list[tuple[float, float]], gate: float
) -> None:
    losses = dict(zip(("performance", "mixed", "minmax"), (v[0] for v in values), strict=True))
    times = dict(zip((FAST, MIXED, MINMAX), (v[1] for v in values), strict=True))
    found = search(pretended(by_setting(**losses), gate, times), TILES, [FAST, MIXED, MINMAX], limit())
    passing = [s for s, v in zip(times, values, strict=True) if v[0] <= gate]
    assert found.best is not None and found.passed == bool(passing)
    chosen = found.trials[found.best].settings
    assert chosen in passing if passing else losses_of(found.trials)[found.best] == pytest.approx(min(losses.values()))
    assert all(times[chosen] <= times[s] for s in passing)


def losses_of(trials: tuple[Trial, ...]) -> list[float]:
    return [1 - (t.score or 0.0) for t in trials]


def test_score_that_is_no_number_fails_the_trial() -> None:
    made = worked(pretended(by_setting(performance=float("nan"), mixed=0.2), gate=1.0), planned=[FAST])
    assert made.model is None and made.record.best is None and made.record.trials[0].outcome == "failed"
    assert made.record.outcome == "rejected" and "not a number" in made.record.reason
    assert made.record.rejection == made.record.reason


def test_what_the_quantizer_refuses_is_recorded_and_the_next_is_tried() -> None:
    def losses(chosen: PtqSettings, _: Any) -> float:
        if chosen == FAST:
            raise KeyError("/net/conv2/Conv")
        return 0.0

    made = worked(pretended(losses))
    assert [t.outcome for t in made.record.trials] == ["failed", "passed"]
    assert "KeyError '/net/conv2/Conv'" in made.record.trials[0].reason


def test_time_budget_stops_the_search_after_one() -> None:
    made = worked(pretended(by_setting(performance=0.0, mixed=0.0)), settings=SearchSettings(seconds=1e-9))
    assert len(made.record.trials) == 1 and made.record.not_tried == 1
    with pytest.raises(RequestError, match="no settings"):
        worked(pretended(by_setting()), planned=[])


# -- where none passes ----------------------------------------------------------------------------------------------


def test_an_f32_student_that_misses_is_said_at_once_and_the_best_is_delivered() -> None:
    said: list[str] = []
    reference = Acceptance(score=1.0, holds=False, shortfall=0.3, reason="kappa max_drop 0.3 of 0.02")
    hooks = Hooks(train=lambda trial: pytest.fail("nothing to train for"), say=said.append)
    made = worked(pretended(by_setting(performance=0.4, mixed=0.35), 0.02), limit(0.36, reference), hooks=hooks)
    assert made.record.outcome == "rejected" and made.record.chosen == MIXED and made.model is not None
    assert made.record.reason.startswith("the f32 student itself misses kappa max_drop 0.3 of 0.02")
    assert said and "cannot mend it" in said[0] and made.record.reversion is None


def trained(net: nn.Module, better: bool) -> tuple[nn.Module, QatRecord]:
    return net, QatRecord(
        outcome="applied" if better else "rejected", reason="step 50", reference_score=1.0, max_drop=1.0, best=50,
        points=(), stopped_early=False, settings=QatSettings(), seconds=0.0,
    )  # fmt: skip


def test_training_comes_first_and_is_taken_where_it_mends() -> None:
    after = nn.Linear(1, 1)
    grounds = {True: pretended(by_setting(performance=0.0), 0.02), False: pretended(by_setting(performance=0.1), 0.02)}
    made = to_int8(
        nn.Identity(), lambda net: grounds[net is after], TILES, [FAST], limit(), SearchSettings(),
        Calibration(sha256="0", tiles=1), "openvino", Hooks(train=lambda trial: trained(after, True)),
    )  # fmt: skip
    assert made.net is after and made.record.outcome == "applied" and made.record.reversion is None
    assert "trained under rounding, passed" in made.record.reason and made.record.trained
    assert made.record.rejection is None


def sensitive(*names: str, rest: float = 0.01) -> Losses:
    """Each named layer that is rounded costs 0.1."""
    return lambda chosen, _: rest + 0.1 * len(set(names) - set(chosen.float_names))


def test_layers_that_bear_no_rounding_are_found_and_left_in_float() -> None:
    hooks = Hooks(train=lambda trial: trained(nn.Identity(), False))
    made = worked(pretended(sensitive("layer 3", "layer 17"), 0.05), planned=[FAST], hooks=hooks)
    record = made.record
    assert record.outcome == "applied" and record.chosen is not None and record.reversion is not None
    assert {"layer 3", "layer 17"} <= set(record.chosen.float_names) and len(record.chosen.float_names) <= 6
    assert max(record.reversion.sensitivity.values()) == pytest.approx(0.1)
    assert "layers in float" in record.reason and "brought nothing" in record.reason and not record.trained
    assert QuantizeRecord.model_validate_json(record.model_dump_json()) == record


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.sampled_from(LAYERS), min_size=1, max_size=4))
def test_reversion_passes_whenever_it_can_within_its_trials(names: set[str]) -> None:
    ground = pretended(sensitive(*names), 0.05)
    base = attempt(ground, TILES, FAST, limit()).trial
    made = revert(ground, TILES, base, limit(), 40, 60.0)
    assert made.model is not None and made.record.outcome == "applied" and len(made.record.trials) <= 40
    assert names <= set(made.model.settings.float_names)


def test_what_nothing_mends_is_rejected_with_the_figures_of_all() -> None:
    made = worked(pretended(lambda chosen, _: 0.3, 0.05), settings=SearchSettings(max_reversions=5))
    assert made.record.outcome == "rejected" and made.model is not None
    assert made.record.reversion is not None and len(made.record.reversion.trials) == 5
    assert "none of 2 settings passed" in made.record.reason and "none passed" in made.record.reason
    assert all(t.found is not None for t in made.record.reversion.trials)
    told = made.record.rejection
    assert told is not None and made.record.chosen is not None and made.record.chosen.label() in told
    assert "drop +0.3000, allowed" in told and "kappa max_drop 0.300" in told and "0.7000 (f32 1.0000)" in told


def test_the_setting_is_repeated_on_every_draw() -> None:
    def losses(chosen: PtqSettings, tiles: Any) -> float:
        return {"a tile": 0.01, "b": 0.03, "c": 0.02}[tiles[0]]

    made = worked(pretended(losses, 0.025), draws=[["a tile"], ["b"], ["c"]])
    spread = made.record.spread
    assert spread is not None and spread.draws == 3 and spread.passed == 2
    assert (spread.gates["kappa"].min, spread.gates["kappa"].median, spread.gates["kappa"].max) == (0.01, 0.02, 0.03)
    assert "over 3 draws of calibration tiles 2 passed, score 0.9700 to 0.9900" in made.record.reason
    assert worked(pretended(losses, 0.025)).record.spread is None
