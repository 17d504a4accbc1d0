"""Numbers as people read them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.numbers import fixed, score, share


@given(st.floats(-2, 2), st.integers(0, 6))
def test_what_rounds_to_nothing_has_no_sign(value: float, places: int) -> None:
    text = fixed(value, places)
    assert float(text) == round(value, places) and len(text.partition(".")[2]) == places
    assert text.startswith("-") == (float(text) < 0)


def test_scores_and_shares() -> None:
    assert (score(-0.0004), score(-0.0006), share(-0.0004), share(-0.0006)) == ("0.000", "-0.001", "0.0 %", "-0.1 %")
