"""How fast text comes: what is counted, and texts that cannot be timed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rsedge.data.errors import RequestError
from rsedge.devices.measure.text_speed import measure_text


def test_first_and_later_tokens_are_told_apart() -> None:
    asked: list[int] = []

    def speak(number: int) -> Iterator[int]:
        asked.append(number)
        yield from range(4)

    found = measure_text(speak, seconds=0.0, threads=1)
    assert asked == [0, 0, 1] and found.texts == 2 and found.tokens == 8
    assert set(found.figures()) == {"first_token_ms", "token_ms", "tokens_per_s"}
    assert found.tokens_per_s is not None and found.tokens_per_s > 0


def test_texts_of_one_token_have_no_speed_after_it() -> None:
    found = measure_text(lambda number: iter([1]), seconds=0.0, threads=1)
    assert set(found.figures()) == {"first_token_ms"} and found.token_ms is None
    with pytest.raises(RequestError, match="without tokens"):
        measure_text(lambda number: iter([]), seconds=0.0, threads=1)
