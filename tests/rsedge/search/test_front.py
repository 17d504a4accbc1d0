"""Fronts and rungs: none on a front is beaten, everything that is not there is, and a rung drops no more than it should."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from rsedge.search.front import Figure, Rung, TrialRow, beats, costs_of, front_of, goes_on, ranks

COSTS = st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), min_size=1, max_size=12)
OBJECTIVES = ("latency", "size", "kappa")


def row(number: int, costs: tuple[float, ...], short: float = 0.0) -> TrialRow:
    latency, size, kappa = costs
    figures = {"latency": latency, "size": size, "kappa": -kappa}
    return TrialRow(
        number=number, state="done", target="t", point={}, shortfalls={"gate": short},
        figures={name: Figure(value=value, provenance="measured") for name, value in figures.items()},
    )  # fmt: skip


@given(COSTS)
def test_none_of_a_front_is_beaten_and_all_others_are(costs: list[tuple[float, ...]]) -> None:
    rows = [row(number, found) for number, found in enumerate(costs)]
    front = front_of(rows, OBJECTIVES)
    assert front and not any(beats(costs_of(a, OBJECTIVES), costs_of(b, OBJECTIVES)) for a in rows for b in front)
    left = [r for r in rows if r not in front]
    assert all(any(beats(costs_of(a, OBJECTIVES), costs_of(b, OBJECTIVES)) for a in front) for b in left)
    assert [costs_of(r, OBJECTIVES) for r in front] == sorted(costs_of(r, OBJECTIVES) for r in front)


@given(COSTS, st.lists(st.floats(-1, 1), min_size=12, max_size=12))
def test_where_gates_hold_for_some_only_those_are_on_the_front(
    costs: list[tuple[float, ...]], short: list[float]
) -> None:
    rows = [row(number, found, short[number]) for number, found in enumerate(costs)]
    front = front_of(rows, OBJECTIVES)
    assert front and (all(r.holds for r in front) or not any(r.holds for r in rows))


@given(COSTS)
def test_ranks_count_fronts(costs: list[tuple[float, ...]]) -> None:
    found = ranks(costs)
    assert min(found) == 0 and set(found) == set(range(max(found) + 1))
    for i, rank in enumerate(found):
        assert not any(beats(costs[j], costs[i]) for j in range(len(costs)) if found[j] >= rank)
        assert rank == 0 or any(beats(costs[j], costs[i]) for j in range(len(costs)) if found[j] == rank - 1)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=10), st.floats(0.05, 1))
def test_a_rung_keeps_its_share_and_what_is_alike_fares_alike(found: list[tuple[float, int]], keep: float) -> None:
    rungs = [Rung(steps=1, score=score, costs=(float(cost), 1.0)) for score, cost in found]
    kept = [goes_on(r, [*rungs[:i], *rungs[i + 1 :]], keep) for i, r in enumerate(rungs)]
    assert sum(kept) >= max(1, math.floor(keep * len(rungs))) or len(rungs) == 1
    best = max(range(len(rungs)), key=lambda i: (-ranks([(-r.score, *r.costs) for r in rungs])[i], rungs[i].score))
    assert kept[best]
    for i, one in enumerate(rungs):
        assert all(kept[i] == kept[j] for j, other in enumerate(rungs) if other == one)


def test_a_small_student_is_not_held_against_a_large_ones_score() -> None:
    large, small = Rung(steps=1, score=0.9, costs=(9.0, 9.0)), Rung(steps=1, score=0.5, costs=(1.0, 1.0))
    beaten = Rung(steps=1, score=0.4, costs=(9.0, 9.0))
    assert goes_on(small, [large, beaten], 0.6) and not goes_on(beaten, [large, small], 0.6)
    assert goes_on(beaten, [], 0.5), "the first at a rung goes on"
    assert goes_on(large, [large, large], 0.34), "what is alike goes on together"


def test_a_trial_without_a_figure_is_on_no_front_beside_others() -> None:
    lacking = row(1, (1.0, 1.0, 1.0)).model_copy(update={"figures": {}})
    assert front_of([row(0, (5.0, 5.0, 5.0)), lacking], OBJECTIVES) == [row(0, (5.0, 5.0, 5.0))]
    assert front_of([lacking.model_copy(update={"state": "failed"})], OBJECTIVES) == []
