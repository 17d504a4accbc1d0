"""Moments by RFC 3339: what is taken is what it names."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsedge.data.moments import moment

ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=ZONES))
def test_every_moment_is_read_as_what_it_is(when: datetime) -> None:
    assert moment(when.isoformat()) == when.replace(microsecond=0)


@given(st.text("0123456789-:.TZz+ t", max_size=30))
def test_other_texts_are_refused_in_words(text: str) -> None:
    try:
        found = moment(text)
    except ValueError as error:
        assert "no date and time" in str(error)
    else:
        assert found.tzinfo is not None and text[:4] == f"{found.year:04}"


@pytest.mark.parametrize(
    "text", ["", "2026-11-30", "2026-11-30T12:00:00", "2026-13-01T00:00:00Z", "2026-11-30T12:00:00+05:99"]
)
def test_these_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no date and time"):
        moment(text)
