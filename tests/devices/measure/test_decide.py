"""Latencies that decide: noise flips no choice, equal means equal, and a machine too noisy to tell says so."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.devices.measure.decide import FLOOR, Contender, Load, Race, Ratio, Turns, agreed, pick, race

SEEDS = st.integers(0, 10_000)


def turns(ms: float, seed: int, noise: float = 0.05, bursts: float = 0.0, count: int = 60) -> Turns:
    """Simulated: processor time with small noise, a wall clock that other work stretches in a share of the turns."""
    rng = np.random.default_rng(seed)
    processor = ms * (1 + noise * rng.exponential(size=count))
    wall = processor * np.where(rng.random(count) < bursts, rng.uniform(1.5, 4.0, count), 1.0)
    return Turns(wall, processor)


def contender(size: float = 1e6, score: float = 0.9, predicted: float = 1.0) -> Contender:
    return Contender(size=size, score=score, predicted=predicted)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, st.floats(0.5, 0.88), st.floats(0.0, 0.9), st.floats(0.01, 0.1))
def test_noise_does_not_flip_a_decision_whose_true_ratio_is_outside_the_interval(
    seed: int, true: float, bursts: float, noise: float
) -> None:
    found = Race({"slow": turns(2.0, seed, noise, bursts), "fast": turns(2.0 * true, seed + 1, noise, bursts)})
    ratio = found.ratio("fast", "slow")
    if not ratio.low <= 1.0 <= ratio.high:
        assert ratio.value < 1
    both = {"slow": contender(size=1, score=1), "fast": contender(size=9, score=0)}
    assert pick(both, found).name == "fast"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, st.floats(0.0, 0.9))
def test_equal_within_noise_is_equal_then_size_then_score(seed: int, bursts: float) -> None:
    found = Race({n: turns(2.0, seed + i, 0.03, bursts) for i, n in enumerate("abc")})
    small = {"a": contender(2e6, 0.99), "b": contender(1e6, 0.1), "c": contender(2e6, 0.5)}
    assert pick(small, found).name == "b"
    scored = {"a": contender(1e6, 0.5), "b": contender(1.01e6, 0.9), "c": contender(1e6, 0.7)}
    chosen = pick(scored, found)
    assert chosen.name == "b" and set(chosen.equal) == set("abc") and "best score" in chosen.reason


def test_processor_time_decides_where_the_wall_clock_lies() -> None:
    """A neighbour that hits one candidate's turns only, as a burst of other work does."""
    quick, slow = turns(1.0, 0), turns(1.5, 1)
    found = Race({"quick": Turns(quick.wall * 3, quick.processor), "slow": slow})
    assert found.clock == "processor time"
    assert pick({"quick": contender(), "slow": contender()}, found).name == "quick"
    blind = Race({"quick": Turns(quick.wall * 3), "slow": Turns(slow.wall)})
    assert blind.clock == "wall clock" and pick({"quick": contender(), "slow": contender()}, blind).name == "slow"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Race({"a": turns(1, 0), "b": turns(2, 1)}, Load(steal=0.4, others=0.1)), "40% was stolen"),
        (Race({"a": Turns(turns(1, 0).wall), "b": Turns(turns(2, 1).wall)}, Load(others=0.6)), "took 60%"),
        (Race({"a": turns(1, 0, 4.0, count=12), "b": turns(2, 1, 4.0, count=12)}), "spread so far"),
    ],
)
def test_too_noisy_says_so_and_the_predicted_order_decides(made: Race, words: str) -> None:
    assert words in (made.too_noisy() or "")
    chosen = pick({"a": contender(predicted=2.0), "b": contender(predicted=1.0)}, made)
    assert chosen.name == "b" and chosen.decided_by == "predicted" and words in chosen.reason


def test_without_timings_the_predicted_order_decides() -> None:
    chosen = pick({"a": contender(predicted=1.02), "b": contender(predicted=1.0, score=0.1)}, None, tolerance=0.1)
    assert chosen.name == "a" and chosen.decided_by == "predicted" and chosen.equal == ("a", "b")


def test_an_interval_that_holds_the_limit_says_neither() -> None:
    ratio = Ratio(value=0.97, low=0.93, high=1.0)
    assert ratio.says(0.98) is None and ratio.says(1.0) is True and ratio.says(0.9) is False


@given(st.floats(0.2, 1.5), st.floats(0.2, 1.5))
def test_plans_go_by_the_prediction_until_it_is_contradicted(value: float, predicted: float) -> None:
    measured = Ratio(value=value, low=value * 0.95, high=value * 1.05)
    found = agreed(measured, predicted)
    assert agreed(None, predicted) == predicted
    assert found == predicted or (abs(found - value) <= 0.026 and not measured.low <= predicted <= measured.high)


def test_real_work_is_timed_by_both_clocks() -> None:
    def work(loops: int) -> None:
        sum(range(loops))

    found = race({"one": lambda: work(10_000), "two": lambda: work(20_000), "too": lambda: work(20_000)}, seconds=0.4)
    assert found.count >= 12 and found.clock == "processor time"
    assert 0.35 < found.ratio("one", "two").value < 0.7
    same = found.ratio("two", "too")
    assert same.low < 1 < same.high and same.half_width >= FLOOR * 0.99
    low, high = found.ms_interval("one")
    assert low < found.ms("one") < high


def test_what_another_device_computes_is_timed_by_the_wall_clock() -> None:
    runners = {"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.008)}
    found = race(runners, seconds=0.2, on_processor=False)
    assert found.clock == "wall clock"
    assert found.ratio("short", "long").value < 0.6


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(RequestError, match="candidates"):
        race({})
    with pytest.raises(RequestError, match="choose from"):
        pick({}, None)
