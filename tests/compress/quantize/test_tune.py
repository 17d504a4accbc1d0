"""A model that passes is made faster: what a race confirms stays, everything else is undone and told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.int8 import QuantizeRecord, to_int8
from rsedge.compress.quantize.layer_times import LayerTimes, layer_times
from rsedge.compress.quantize.ptq import Calibration, PtqSettings
from rsedge.compress.quantize.search import Fastest, Ground, SearchSettings, Speed, Trial, Tuning, attempt
from rsedge.compress.quantize.tune import Tuned, tune, verdict

LAYERS = tuple(f"layer {i}" for i in range(8))
BASE = PtqSettings()


@dataclass(frozen=True)
class Model:
    settings: PtqSettings


@dataclass(frozen=True)
class Machine:
    """Pretended: milliseconds saved by bf16 and by each layer in float, of 10; likeness lost in bf16 and won per layer."""

    bf16: float = 0.0
    saved: dict[str, float] | None = None
    bf16_loss: float = 0.0
    won: float = 0.0
    noise: str | None = None

    def ms(self, model: Model) -> float:
        saved = sum((self.saved or {}).get(name, 0.0) for name in model.settings.float_names)
        return 10 - saved - (self.bf16 if model.settings.float_precision == "bf16" else 0.0)

    def accept(self, model: Model) -> Acceptance:
        loss = self.bf16_loss if model.settings.float_precision == "bf16" else 0.0
        return Acceptance(score=0.9 - loss + self.won * len(model.settings.float_names))

    def race(self, first: Model, second: Model) -> Speed:
        ratio = self.ms(first) / self.ms(second)
        return Speed(ratio=ratio, low=ratio * 0.97, high=ratio * 1.03, noise=self.noise)

    def ground(self, slow: Sequence[tuple[str, ...]] = ()) -> Ground[Model]:
        tuning = Tuning(
            self.race,
            lambda model: Model(model.settings.model_copy(update={"float_precision": "bf16"})),
            lambda _: [LayerTimes(layers=group, int8_ms=2.0, float_ms=1.0) for group in slow],
        )
        return Ground(lambda _, chosen: Model(chosen), self.accept, lambda _: 100, _first, LAYERS, tuning)


def _first(models: Any) -> Fastest:
    return Fastest(next(iter(models)), "the first", {})


def tuned(machine: Machine, *slow: tuple[str, ...], max_drop: float = 0.01, **asked: Any) -> Tuned[Model]:
    ground, limit = machine.ground(slow), Limit(Acceptance(score=0.9), max_drop)
    base = attempt(ground, (), BASE, limit)
    assert base.model is not None
    return tune(ground, (), base.model, base.trial, limit, SearchSettings(**asked))


def test_bf16_stays_where_it_is_faster_and_passes() -> None:
    made = tuned(Machine(bf16=0.9))
    assert made.model.settings.float_precision == "bf16" == made.trial.settings.float_precision
    assert [(s.what, s.kept) for s in made.steps] == [("bf16", True)]
    assert "0.910 of the time" in made.steps[0].reason and made.trial.settings.label().endswith("bf16 for the rest")


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(bf16=0.1), "brings nothing"),
        (Machine(bf16=2.0, bf16_loss=0.02), "allowed 0.0100"),
        (Machine(bf16=2.0, noise="too noisy to tell"), "too noisy to tell"),
    ],
)
def test_bf16_is_undone_otherwise(machine: Machine, words: str) -> None:
    made = tuned(machine)
    assert made.model.settings == BASE and not made.steps[0].kept and words in made.steps[0].reason


def test_f32_alone_can_be_asked_for() -> None:
    assert tuned(Machine(bf16=0.9), float_precision="f32").steps == ()


def test_of_slow_layers_those_that_help_go_back_to_float() -> None:
    saved = {"layer 1": 1.0, "layer 5": -2.0}
    made = tuned(Machine(saved=saved), ("layer 1",), ("layer 5",), ("layer 6",), float_precision="f32", max_tunings=6)
    kept = [s.trial.settings.float_names for s in made.steps if s.kept]
    assert kept[-1] == made.model.settings.float_names and "layer 1" in kept[-1]
    assert "layer 5" not in made.model.settings.float_names
    assert not made.steps[0].kept and len(made.steps[0].trial.settings.float_names) == 3


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.floats(-0.002, 0.002), st.integers(0, 6))
def test_what_comes_out_is_no_slower_no_worse_and_within_its_trials(saved: list[float], won: float, most: int) -> None:
    machine = Machine(saved=dict(zip(LAYERS, saved, strict=True)), won=won)
    made = tuned(machine, *((name,) for name in LAYERS), max_drop=1.0, max_tunings=most, float_precision="f32")
    assert len(made.steps) <= most and machine.ms(made.model) <= 10 * 1.03 ** max(1, len(made.steps))
    assert (made.trial.score or 0) >= 0.9 - 0.0005 * len(made.steps)
    assert all(s.kept or s.reason for s in made.steps)


def test_only_what_a_race_could_tell_is_tried() -> None:
    machine = Machine(saved={"layer 1": 5.0})
    ground = machine.ground()
    assert ground.tuning is not None
    times = [
        LayerTimes(layers=(name,), int8_ms=1.0, float_ms=0.9 if name == "layer 1" else 1.1 - 0.01 * i)
        for i, name in enumerate(LAYERS)
    ]
    ground = replace(ground, tuning=replace(ground.tuning, layer_times=lambda _: times))
    base = attempt(ground, (), BASE, Limit(Acceptance(score=0.9), 1.0))
    assert base.model is not None
    asked = SearchSettings(float_precision="f32")
    made = tune(ground, (), base.model, base.trial, Limit(Acceptance(score=0.9), 1.0), asked)
    assert made.steps == () and made.layer_times == tuple(times), "0.1 of 8 ms is less than a race can tell"
    times[1] = times[1].model_copy(update={"float_ms": 0.5})
    made = tune(ground, (), base.model, base.trial, Limit(Acceptance(score=0.9), 1.0), asked)
    assert [s.kept for s in made.steps] == [True] and made.model.settings.float_names == ("layer 1",)


def test_what_is_no_layer_is_charged_to_the_next_that_both_models_run() -> None:
    int8 = {"cast": 1.0, "a": 2.0, "round": 0.5, "q": 1.0, "scores": 3.0, "mix": 4.0, "b": 1.0, "resize": 7.0}
    plain = {"cast": 1.0, "a": 4.0, "q": 2.0, "fused attention": 5.0, "b": 2.0, "resize": 0.0, "tail": 2.0}
    found = layer_times(int8, plain, ["a", "q", "scores", "mix", "b"], {"q", "scores", "mix", "b"})
    assert [(t.layers, t.int8_ms, t.float_ms) for t in found] == [
        (("q",), 1.5, 2.0),
        (("scores", "mix", "b"), 15.0, 9.0),
    ]
    assert found[1].saved_ms == 6.0


def test_layers_in_as_much_time_need_likeness() -> None:
    same, faster = Speed(ratio=1.0, low=0.97, high=1.03), Speed(ratio=0.8, low=0.78, high=0.82)
    slower = Speed(ratio=1.2, low=1.1, high=1.3)
    assert verdict("layers", same, 0.01)[0] and not verdict("layers", same, 0.0)[0]
    assert verdict("layers", faster, 0.0)[0] and not verdict("layers", faster, -0.01)[0]
    assert not verdict("layers", slower, 0.1)[0] and not verdict("bf16", same, 0.1)[0]
    assert not verdict("layers", replace_noise(same), 0.1)[0]


def replace_noise(speed: Speed) -> Speed:
    return speed.model_copy(update={"noise": "too noisy to tell"})


def whole(machine: Machine, accept: Callable[[Model], Acceptance] | None = None) -> Any:
    ground = machine.ground([("layer 2",)])
    ground = ground if accept is None else replace(ground, accept=accept)
    return to_int8(
        nn.Identity(), lambda _: ground, ("a tile",), [BASE], Limit(Acceptance(score=0.9), 0.01),
        SearchSettings(max_reversions=0), Calibration(sha256="0", tiles=1), "openvino",
    )  # fmt: skip


def test_the_record_holds_the_steps_and_what_is_delivered() -> None:
    record = whole(Machine(bf16=1.0, saved={"layer 2": 1.0})).record
    assert [s.what for s in record.tuning] == ["bf16", "layers"] and all(s.kept for s in record.tuning)
    assert record.chosen.float_precision == "bf16" and record.chosen.float_names == ("layer 2",)
    assert "bf16 for the rest: 0.900 of the time" in record.reason
    assert QuantizeRecord.model_validate_json(record.model_dump_json()) == record


def test_nothing_is_tuned_that_does_not_pass() -> None:
    missed = whole(Machine(bf16=1.0), lambda _: Acceptance(score=0.5))
    assert missed.record.outcome == "rejected" and missed.record.tuning == ()


def test_a_step_that_cannot_be_made_is_undone() -> None:
    def refuses(_: Model) -> Model:
        raise RuntimeError("no such kernel")

    ground = Machine(bf16=1.0).ground()
    assert ground.tuning is not None
    ground = replace(ground, tuning=replace(ground.tuning, bf16=refuses))
    trial = Trial(settings=BASE, outcome="passed", reason="", found=Acceptance(score=0.9), seconds=0.0)
    made = tune(ground, (), Model(BASE), trial, Limit(Acceptance(score=0.9), 0.01), SearchSettings())
    assert made.model.settings == BASE and "no such kernel" in made.steps[0].reason and made.steps[0].speed is None
