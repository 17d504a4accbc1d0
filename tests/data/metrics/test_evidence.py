"""Intervals: they hold the truth as often as they say, pairs are told apart better than strangers, and one unit says nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.metrics.boxes import BoxComparison, ap50_statistic
from rsedge.data.metrics.confusion import Confusion, block_tables, kappas
from rsedge.data.metrics.evidence import evidence
from rsedge.data.metrics.figures import record_of, statistics_of
from rsedge.data.metrics.samples import sample_comparisons
from rsedge.data.metrics.statistics import Estimate, Statistic, Statistics, estimate, more_units, ratio, student_t
from rsedge.data.metrics.texts import TextComparison, WordComparison
from rsedge.data.scenes.splits import FEW_UNITS
from tests.data.metrics.test_box_metrics import images

PIXELS = 400


def statistics_of_tables(tables: np.ndarray) -> dict[str, Statistic]:
    return statistics_of(Confusion("map", tables, ("a", "b")))


def tables(rng: np.random.Generator, blocks: int, loss: float) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrices of a teacher and a student, (blocks, 2, 2): hard blocks are hard for both, the student is worse by about
    ``loss`` and by another amount in each block."""
    share, skill = rng.beta(2, 3, blocks), rng.beta(18, 2, blocks)
    positive = rng.binomial(PIXELS, share)

    def made(right: np.ndarray) -> np.ndarray:
        hits, clear = rng.binomial(positive, right), rng.binomial(PIXELS - positive, right)
        return np.stack([clear, PIXELS - positive - clear, positive - hits, hits], 1).reshape(-1, 2, 2)

    return made(skill), made(np.clip(skill - rng.normal(loss, 0.05, blocks), 0.5, 1))


@pytest.mark.parametrize("blocks", [3, 6, 24])
def test_the_interval_of_the_drop_holds_the_true_one_near_95_times_in_100(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    teacher, student = tables(rng, 200_000, 0.04)
    truth = float(kappas(teacher.sum(0)) - kappas(student.sum(0)))
    held, runs = 0, 300
    for run in range(runs):
        teacher, student = tables(rng, blocks, 0.04)
        found = evidence(*(Statistics("blocks", statistics_of_tables(t)) for t in (student, teacher)), seed=run)[
            "kappa"
        ]
        assert found.drop is not None and found.drop.interval is not None
        held += found.drop.interval[0] <= truth <= found.drop.interval[1]
    # 300 runs of a coin that falls right 95 times in 100: 0.92 to 0.98 in all but one case of a hundred.
    assert 0.91 <= held / runs <= 0.985


@pytest.mark.parametrize("blocks", [20, 60])
def test_the_interval_of_a_share_holds_the_true_one_where_few_blocks_hold_most_errors(blocks: int) -> None:
    """Errors are spread as a lognormal: symmetric intervals held the true share 83 and 91 times in 100."""

    def right(rng: np.random.Generator, count: int) -> np.ndarray:
        return PIXELS - rng.binomial(PIXELS, np.minimum(0.02 * rng.lognormal(0, 1.2, count), 1))

    truth, held, runs = float(right(np.random.default_rng(0), 1_000_000).mean()) / PIXELS, 0, 300
    for run in range(runs):
        share = ratio(right(np.random.default_rng([run, blocks]), blocks), np.full(blocks, PIXELS))
        found = estimate(share, run)
        assert found.value is not None and found.interval is not None
        held += found.interval[0] <= truth <= found.interval[1]
    assert held / runs >= 0.9


@given(st.integers(9, 5000), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_an_interval_reaches_further_to_the_side_of_the_few(units: int, seed: int) -> None:
    wrong = np.zeros(units)
    wrong[np.random.default_rng(seed).choice(units, 2, replace=False)] = 5
    low, high = (estimate(ratio(100 + sign * wrong, np.full(units, 200)), seed) for sign in (-1, 1))
    for found, sign in ((low, -1), (high, 1)):
        assert found.value is not None and found.interval is not None and found.se is not None
        below, above = found.value - found.interval[0], found.interval[1] - found.value
        far, near = (above, below) if sign > 0 else (below, above)
        assert 2 * student_t(units - 1) * found.se > far > student_t(units - 1) * found.se > near > 0


def test_pairing_narrows_the_interval() -> None:
    teacher, student = tables(np.random.default_rng(0), 40, 0.04)
    own, base = (Statistics("blocks", statistics_of_tables(t)) for t in (student, teacher))
    paired = evidence(own, base)["kappa"].drop
    strangers = evidence(own, Statistics("blocks", statistics_of_tables(teacher[::-1])))["kappa"].drop
    assert paired is not None and strangers is not None and paired.se is not None and strangers.se is not None
    assert paired.value == pytest.approx(strangers.value) and paired.se < 0.7 * strangers.se


def test_a_network_against_itself_loses_nothing_for_certain() -> None:
    teacher, _ = tables(np.random.default_rng(1), 12, 0.0)
    base = Statistics("blocks", statistics_of_tables(teacher))
    found = evidence(base, base)["kappa"]
    assert found.drop is not None and found.drop.value == 0 and found.drop.interval == (0, 0)


def test_one_unit_has_no_interval() -> None:
    teacher, student = tables(np.random.default_rng(2), 1, 0.04)
    found = evidence(*(Statistics("blocks", statistics_of_tables(t)) for t in (student, teacher)))["kappa"]
    assert found.n == 1 and found.own.value is not None and found.own.interval is None
    assert found.drop is not None and found.drop.interval is None and "one block" in (found.note or "")


def test_what_is_not_defined_has_no_value_and_says_why() -> None:
    labels = np.zeros(40, int)
    one = block_tables(labels, labels, np.arange(40) // 10, 4, 2)
    own = Statistics("blocks", statistics_of_tables(one))
    found = evidence(own, own)["kappa"]
    assert found.own.value is None and found.drop is not None and found.drop.value is None
    assert "one class" in (found.note or "")


def test_no_share_of_nothing_is_lost() -> None:
    wrong = np.array([[[0, 5], [5, 0]]] * 4)
    own = Statistics("blocks", statistics_of_tables(wrong))
    found = evidence(own, own)["kappa"]  # The teacher's kappa is -1.
    assert found.relative_drop is not None and found.relative_drop.value is None
    assert "no share" in (found.note or "")


def test_networks_judged_on_other_units_are_refused() -> None:
    first, second = (Statistics("blocks", {"f1": ratio([1] * n, [2] * n)}) for n in (3, 4))
    with pytest.raises(ValueError, match="3 blocks of one network, 4"):
        evidence(first, second)


@pytest.mark.parametrize("units", [2, 3, 7, 8, 2000])
def test_few_units_without_a_difference_tell_no_spread(units: int) -> None:
    right = Statistics("blocks", {"agreement": ratio(np.full(units, 9), np.full(units, 9))})
    found = evidence(right, right)["agreement"]
    assert found.own.value == 1 and found.own.se == 0
    few = units < FEW_UNITS
    assert (found.own.interval is None) is few and ("do not differ" in (found.note or "")) is few
    assert more_units(found.own, units, 0.9) == (FEW_UNITS - units if few else 1)
    labels = np.tile([[[6, 1], [2, 3]]], (units, 1, 1))
    same = evidence(*[Statistics("blocks", statistics_of_tables(labels))] * 2)["kappa"]
    for lost in (same.drop, same.relative_drop):
        assert lost is not None and lost.value == 0 and (lost.interval is None) is few


@pytest.mark.parametrize("units", [9, 40])
@pytest.mark.parametrize("telling", [1, 3])
def test_a_figure_of_few_of_many_units_is_not_certain(units: int, telling: int) -> None:
    """A class that stands in one block of nine, all right there, says nothing of the next block."""
    holds = np.arange(units) < telling
    own = ratio(holds, holds)
    found = evidence(Statistics("blocks", {"agreement": own}), Statistics("blocks"))["agreement"]
    assert found.own.value == 1 and found.own.interval is None and more_units(found.own, units, 0.5) is None
    assert found.note is not None and f"in few of the {units} blocks" in found.note


@given(st.integers(2, 30), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_same_seed_gives_the_same_interval_and_it_stays_in_range(units: int, seed: int) -> None:
    top = np.random.default_rng(seed).integers(0, 11, units)
    share = ratio(top, np.full(units, 10))
    first, second = estimate(share, seed), estimate(share, seed)
    assert first == second and first.value is not None
    if first.interval is None:
        assert units < FEW_UNITS and len(set(top)) == 1
        return
    assert 0 <= first.interval[0] <= first.value <= first.interval[1] <= 1


def test_student_t_is_that_of_the_tables() -> None:
    for freedom, value in ((1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (10**6, 1.960)):
        assert student_t(freedom) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("kind", ["classes", "labels", "values", "embedding"])
def test_figures_of_samples_do_not_depend_on_how_they_are_grouped(kind: str) -> None:
    rng = np.random.default_rng(3)
    found, reference = (rng.normal(size=(60, 4)).astype(np.float32) for _ in range(2))
    labels = {"classes": rng.integers(-1, 4, 60), "labels": rng.integers(-1, 2, (60, 4)),
              "values": (found + rng.normal(size=found.shape)).astype(np.float32), "embedding": None}[kind]  # fmt: skip

    def of(groups: list[str]) -> dict[str, Statistic]:
        names = ("a", "b", "c", "d")
        return statistics_of(*sample_comparisons(kind, found, reference, labels, names, np.array(groups)))  # type: ignore[arg-type]

    grouped, alone = of([f"g{i % 7}" for i in range(60)]), of([f"g{i:02}" for i in range(60)])
    assert {s.units for s in grouped.values()} == {7} and {"agreement"} < set(grouped) == set(alone)
    assert all(s.value == pytest.approx(alone[name].value, abs=1e-6) for name, s in grouped.items())


def test_a_group_left_out_is_one_that_was_never_there() -> None:
    found, truth = images(5)
    groups = np.array(["a", "b", "b"])
    first = record_of(BoxComparison("boxes", found[:1], truth[:1], ["x", "y"], groups[:1], 0.4))
    for name, statistic in statistics_of(BoxComparison("boxes", found, truth, ["x", "y"], groups, 0.4)).items():
        assert statistic.of(np.array([[1.0, 0.0]]))[0] == pytest.approx(first[name])
    texts, known = ["a red ship", "two planes"], [["a ship"], ["two white planes", "planes"]]
    several = statistics_of(TextComparison("texts", texts, known))
    alone = record_of(TextComparison("texts", texts[:1], known[:1]))
    for name in ("rouge_l", "bleu4"):  # how rare words are, for cider, all references tell
        assert several[name].of(np.array([[1.0, 0.0]]))[0] == pytest.approx(alone[name])
    words = WordComparison("teacher words", [[1, 2], [3]], [[1, 2], [4]])
    assert statistics_of(words)["caption_agreement"].value == 0.5


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_an_image_drawn_twice_counts_as_two(seed: int) -> None:
    found, truth = images(seed)
    groups = np.array(["a", "b", "c"])
    names, pick = ["x", "y"], [0, 0, 1]
    twice = ap50_statistic(BoxComparison("boxes", found, truth, names, groups, 0.3)).of(np.array([[2.0, 1.0, 0.0]]))[0]
    picked = [found[i] for i in pick], [truth[i] for i in pick]
    whole = ap50_statistic(BoxComparison("boxes", *picked, names, np.arange(3).astype(str), 0.3)).value
    assert twice == pytest.approx(whole)


@given(st.integers(2, 400), st.floats(0.001, 0.2), st.floats(0.004, 0.5))
def test_as_many_more_units_as_are_told_decide_and_one_less_does_not(units: int, se: float, room: float) -> None:
    def half(count: int) -> float:
        return student_t(count - 1) * se * math.sqrt(units / count)

    reach = half(units)
    more = more_units(Estimate(value=0.5, interval=(0.5 - reach, 0.5 + reach), se=se), units, 0.5 + room)
    assert more is not None and half(units + more) < room
    assert more == 1 or half(units + more - 1) >= room
