"""What each layer's rounding does alone is told apart, within its bounds, and orders what goes back to float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.compress.quantize import sensitivity as module
from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.alone import Damage, alone, rounded_layers
from rsedge.compress.quantize.ptq import PtqSettings, quantize
from rsedge.compress.quantize.revert import revert
from rsedge.compress.quantize.search import Fastest, Ground, attempt
from rsedge.compress.quantize.sensitivity import Probe, Sensitivity, sensitivity

ops: Any = ov.opset13
LAYERS = tuple(f"layer {i}" for i in range(20))
RNG = np.random.default_rng(0)


def weights(*shape: int) -> Any:
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def convolved(x: Any, kernel: Any, name: str) -> Any:
    return ops.relu(ops.convolution(x, kernel, [1, 1], [1, 1], [1, 1], [1, 1], name=name))


def network() -> ov.Model:
    """Two branches that are joined; the second layer's weights of one output hold an outlier, which 8 bits bear badly."""
    dn = ops.parameter([1, 3, 16, 16], np.float32, name="dn")
    first = convolved(ops.multiply(dn, np.float32(1)), weights(8, 3, 3, 3), "first")
    kernel = weights(8, 8, 3, 3)
    kernel[:, 0] *= 100.0
    second = convolved(first, kernel, "second")
    joined = ops.concat([ops.max_pool(first, [1, 1], [1, 1], [0, 0], [0, 0], [1, 1]).output(0), second], 1)
    last = ops.convolution(joined, weights(4, 16, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1], name="last")
    last.output(0).set_names({"logits"})
    return ov.Model([last], [dn])


def products() -> ov.Model:
    """Matrix products behind a layer norm, which SmoothQuant scales."""
    dn = ops.parameter([1, 16, 32], np.float32, name="dn")
    embedded = ops.matmul(dn, weights(32, 32), False, False, name="embed")
    normed = ops.mvn(embedded, np.array([-1]), True, 1e-6, "inside_sqrt")
    scale = np.ones(32, np.float32)
    scale[3] = 30.0
    grown = ops.matmul(ops.multiply(normed, scale), weights(32, 64), False, False, name="grow")
    attention = ops.softmax(ops.matmul(grown, grown, False, True, name="scores"), -1)
    last = ops.matmul(ops.matmul(attention, grown, False, False, name="mix"), weights(64, 8), False, False, name="last")
    last.output(0).set_names({"logits"})
    return ov.Model([last], [dn])


def tiles(*shape: int) -> list[Any]:
    return [RNG.normal(size=shape).astype(np.float32) for _ in range(8)]


@pytest.fixture(scope="module")
def damage() -> Damage:
    model, given_ = network(), tiles(3, 16, 16)
    return Damage(model, quantize(model, given_, PtqSettings()), given_, 1)


def test_the_layer_that_bears_rounding_worst_is_found(damage: Damage) -> None:
    assert rounded_layers(damage._int8) == ("first", "second", "last")
    alone_ = {name: damage([name]) for name in ("first", "second", "last")}
    assert max(alone_, key=lambda n: alone_[n]) == "second" and min(alone_.values()) > 0
    assert damage([]) == 0
    together = damage(("first", "second", "last"))
    assert together == pytest.approx(np.sqrt(sum(v * v for v in alone_.values())), rel=0.5)


def test_all_layers_alone_are_the_int8_graph_smoothed_or_not() -> None:
    for model, shape, chosen in [
        (network(), (3, 16, 16), PtqSettings(preset="mixed")),
        (products(), (16, 32), PtqSettings(preset="mixed", smooth_quant=0.5)),
    ]:
        given_ = tiles(*shape)
        int8 = quantize(model, given_, chosen)
        made = Damage(model, int8, given_, 1)
        assert {"first", "last"} & set(rounded_layers(int8))
        whole = made._logits(alone(model, int8, rounded_layers(int8)))
        gap = np.abs(whole - made._logits(int8)).mean() / made._spread
        assert gap < 0.02, "but for bias correction, and what is rounded beside layers"


# -- bounds ---------------------------------------------------------------------------------------------------------


def probe(sizes: dict[str, float], seconds: float = 0.0, clock: list[float] | None = None) -> Probe:
    def damage(layers: Sequence[str]) -> float:
        if clock is not None:
            clock[0] += seconds
        return float(np.sqrt(sum(sizes[n] ** 2 for n in layers)))

    return Probe(tuple(sizes), damage, 8)


def test_neighbours_are_taken_together_where_there_are_too_many() -> None:
    found = sensitivity(probe(dict.fromkeys(LAYERS, 1.0)), 7, 60.0)
    assert found is not None and len(found.parts) == 7
    assert [n for part in found.parts for n in part.layers] == list(LAYERS)
    assert sensitivity(probe({}), 7, 60.0) is None and sensitivity(probe({"a": 1.0}), 0, 60.0) is None
    assert Sensitivity.model_validate_json(found.model_dump_json()) == found


def test_time_bounds_the_figures_and_what_is_left_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = [0.0], []
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    found = sensitivity(probe(dict.fromkeys(LAYERS, 1.0), 6.0, clock), 64, 61.0, said.append)
    assert found is not None and len(found.parts) == 10 and found.seconds == pytest.approx(66.0)
    assert said[0] == "damage of each layer alone, 2 of 10: about 48 s left"


# -- what it is for -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.sets(st.sampled_from(LAYERS), min_size=1, max_size=6))
def test_exactly_the_layers_that_matter_go_to_float_in_few_trials(bad: set[str]) -> None:
    def accept(chosen: PtqSettings) -> Acceptance:
        left = len(bad - set(chosen.float_names))
        return Acceptance(score=1.0, holds=not left, shortfall=float(left))

    ground = Ground(
        lambda _, chosen: chosen, accept, lambda _: 1, lambda models: Fastest(next(iter(models)), "", {}), LAYERS
    )
    limit = Limit(Acceptance(score=1.0), 1.0)
    order = sensitivity(probe({n: 1.0 if n in bad else 0.1 for n in LAYERS}), 64, 60.0)
    assert order is not None
    base = attempt(ground, (), PtqSettings(), limit).trial
    made = revert(ground, (), base, limit, 40, 60.0, worst_first=order.worst_first())
    assert made.model is not None and set(made.model.float_names) == bad
    assert len(made.record.trials) <= 6 and made.record.sensitivity == {}
