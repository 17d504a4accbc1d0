"""Caption metrics: what their papers say of cases worked out by hand, invariants, and an independent BLEU."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsedge.data.metrics.figures import record_of
from rsedge.data.metrics.texts import TextComparison, WordComparison, words_of

WORDS = st.lists(st.sampled_from(["ship", "plane", "field", "road", "river", "two"]), min_size=1, max_size=9)
SETS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5)


def texts_record(texts: list[str], references: list[list[str]]) -> dict[str, Any]:
    return record_of(TextComparison("texts", texts, references))


def words_record(found: list[list[int]], reference: list[list[int]]) -> dict[str, Any]:
    return record_of(WordComparison("teacher words", found, reference))


def score(name: str, told: list[list[str]], known: list[list[list[str]]]) -> float:
    found = texts_record([" ".join(t) for t in told], [[" ".join(r) for r in k] for k in known])[name]
    assert found is not None
    return found


def test_words_are_lower_case_runs_without_punctuation() -> None:
    assert words_of("Two ships, isn't it? (A-4)") == ["two", "ships", "isn't", "it", "a", "4"]


def test_tokens_are_compared_place_by_place_over_the_longer_text() -> None:
    assert words_record([[1, 2, 3]], [[1, 9, 3, 4]])["token_agreement"] == 0.5
    assert words_record([[]], [[]]) == {"token_agreement": None, "caption_agreement": 1.0}
    assert words_record([[1], [2]], [[1], [2, 3]])["caption_agreement"] == 0.5


def test_rouge_of_a_case_worked_out_by_hand() -> None:
    """Lin 2004, section 3: "police killed the gunman" and "police kill the gunman" share three words of four in order."""
    told, known = ["police", "kill", "the", "gunman"], [["police", "killed", "the", "gunman"]]
    assert score("rouge_l", [told], [known]) == pytest.approx(0.75)
    assert score("rouge_l", [["the", "gunman", "kill", "police"]], [known]) == pytest.approx(0.5)
    assert score("rouge_l", [[]], [known]) == 0.0


def test_bleu_clips_repeated_words_and_takes_short_texts_down() -> None:
    known = [["the", "cat", "is", "on", "the", "mat"]]
    assert score("bleu4", [["the"] * 7], [known]) == 0.0
    assert score("bleu4", [known[0][:5]], [known]) == pytest.approx(math.exp(1 - 6 / 5))


def test_cider_counts_rare_words_more() -> None:
    known = [[["a", "ship"]], [["a", "plane"]], [["a", "road"]]]
    ship, common = (
        score("cider", [text, ["a", "plane"], ["a", "road"]], known) for text in (["a", "ship"], ["a", "plane"])
    )
    assert ship > common
    # A word that every picture has says nothing.
    assert score("cider", [["a"], ["a"], ["a"]], known) == 0.0


def test_of_no_texts_nothing_is_said() -> None:
    assert set(texts_record([], []).values()) == {None}


@settings(max_examples=60, deadline=None)
@given(SETS)
def test_a_reference_itself_is_best_and_all_lie_in_range(pairs: list[tuple[list[str], list[list[str]]]]) -> None:
    told, known = [t for t, _ in pairs], [k for _, k in pairs]
    rouge, bleu, cider = (score(name, told, known) for name in ("rouge_l", "bleu4", "cider"))
    assert 0 <= rouge <= 1 and 0 <= bleu <= 1 + 1e-9 and 0 <= cider <= 10 + 1e-9
    assert score("rouge_l", [k[0] for k in known], known) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(SETS)
def test_bleu_is_that_of_torchmetrics(pairs: list[tuple[list[str], list[list[str]]]]) -> None:
    text = pytest.importorskip("torchmetrics.functional.text")
    told, known = [t for t, _ in pairs], [k for _, k in pairs]
    # Between two references that are equally near in length the paper leaves the choice open.
    assume(all(len({abs(len(r) - len(t)) for r in k}) == len({len(r) for r in k}) for t, k in pairs))
    expected = float(text.bleu_score([" ".join(t) for t in told], [[" ".join(r) for r in k] for k in known]))
    assert score("bleu4", told, known) == pytest.approx(expected, abs=1e-5)
