"""Arrays against arrays: what is within tolerance, and what hides behind a constant."""

from __future__ import annotations

import numpy as np
import pytest

from rsedge.models.comparing import FINE, FLOOR, TOLERANCE, allowed, held, summed_up

RNG = np.random.default_rng(1)
WIDE = RNG.standard_normal((2, 50)).astype(np.float32)


def test_a_ten_thousandth_of_the_largest_value_is_allowed() -> None:
    assert allowed(WIDE) == TOLERANCE
    largest = float(np.abs(WIDE).max())
    for share, agrees in ((0.9, True), (1.1, False)):
        (one,) = held({"a": WIDE}, {"a": WIDE + np.float32(share * TOLERANCE * largest)})
        assert one.agrees is agrees
        assert one.difference == pytest.approx(share * TOLERANCE, rel=0.01)


def test_what_hardly_varies_is_held_to_a_share_of_that() -> None:
    """Samples that differ by a hundredth: a thousandth of it, and not less than rounding leaves."""
    little = np.stack([np.ones(50), np.full(50, 0.99)])
    assert allowed(little) == pytest.approx(FINE * 0.01)
    assert allowed(np.ones((2, 50))) == FLOOR
    assert allowed(np.ones((1, 50)) * 5, deviation=np.array([0.05])) == pytest.approx(FINE * 0.01)


def test_parts_of_a_map_share_its_deviation() -> None:
    maps = np.ones((1, 4, 8, 8)) + 1e-2 * RNG.standard_normal((1, 4, 8, 8))
    expected = summed_up("map", maps)
    found = held(expected, summed_up("map", maps + 5e-5))
    assert {one.name: one.agrees for one in found}["map.mean"] is False
    assert all(one.agrees for one in held(expected, expected))


@pytest.mark.parametrize(
    ("found", "why"),
    [({}, "not among our outputs"), ({"a": WIDE[:1]}, r"(1, 50)"), ({"a": np.full_like(WIDE, np.nan)}, "not finite")],
)
def test_what_cannot_be_compared_does_not_agree(found: dict[str, np.ndarray], why: str) -> None:
    (one,) = held({"a": WIDE}, found)
    assert not one.agrees and why in one.why
