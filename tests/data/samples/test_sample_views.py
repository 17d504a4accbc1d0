"""Views of samples: the contract's shape and type, what must never move, missing values, folds of whole groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.samples.views import SampleViews, SampleViewSettings, group_folds

SERIES = InputSpec(
    bands=tuple(
        BandSpec(name=n, nodata=None if n in ("month", "latitude") else 65535.0)
        for n in ("vv", "vh", "red", "nir", "elevation", "month", "latitude")
    ),
    layout="TC", frames=6, tile=1, dtype="float32",
)  # fmt: skip
IMAGE = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), tile=16, dtype="uint16")
PLACE = InputSpec(bands=(BandSpec(name="latitude"), BandSpec(name="longitude")), layout="C", tile=1, dtype="float32")
RNG = np.random.default_rng(0)


def series(count: int = 8) -> np.ndarray:
    dn = RNG.uniform(0, 3000, (count, *SERIES.shape)).astype(np.float32)
    dn[..., 5] = np.arange(6)
    dn[..., 6] = 45.0
    dn[0, 2, :2] = 65535
    return dn


def views(dn: np.ndarray, spec: InputSpec, seed: int = 0, **changes: object) -> SampleViews:
    return SampleViews(dn, spec, SampleViewSettings(**({"plain": 0.0} | changes)), seed)  # type: ignore[arg-type]


def test_a_view_is_given_by_seed_and_number() -> None:
    dn = series()
    first, again, other = (views(dn, SERIES, s, drop=0.5, shift=0.5) for s in (0, 0, 1))
    for i in range(5):
        np.testing.assert_array_equal(first(i), again(i))
    assert any((first(i) != other(i)).any() for i in range(5))


def test_plain_views_are_the_samples() -> None:
    dn = series()
    found = views(dn, SERIES, plain=1.0)
    assert all(any(np.array_equal(found(i), sample) for sample in dn) for i in range(10))


def test_months_and_places_are_never_scaled_and_missing_values_stay_missing() -> None:
    dn = series(1)
    for i in range(20):
        found = views(dn, SERIES, mix=1.0, gain=0.5, noise=0.2)(i)  # blended with itself
        np.testing.assert_array_equal(found[:, 5:], dn[0, :, 5:])
        np.testing.assert_allclose(found[:, 4], dn[0, :, 4], rtol=1e-6)
        assert (found[2, :2] == 65535).all() and (found[[0, 1, 3, 4, 5], :4] != 65535).all()


def test_apart_each_sensor_has_a_share_of_its_own() -> None:
    dn = np.repeat(series(1), 2, axis=0)
    dn[0, :, :4], dn[1, :, :4] = 0, 1000
    shares = []
    for i in range(20):
        found = views(dn, SERIES, mix=1.0, apart=1.0, gain=0, noise=0)(i)[:, :4].astype(float)
        np.testing.assert_array_equal(found[:, 0], found[:, 1])  # of one sensor
        np.testing.assert_array_equal(found[:, 2], found[:, 3])
        shares.append((found[0, 0], found[0, 2]))
    assert any(radar != optical for radar, optical in shares)


def test_a_lost_group_is_lost_whole_and_months_roll_with_their_values() -> None:
    dn = series(1)
    dn[0, 2, :2] = 7
    lost = [views(dn, SERIES, mix=0, gain=0, noise=0, drop=1.0)(i) == 65535 for i in range(20)]
    for gone in lost:
        assert gone.any() and not gone[:, 4:].any()
        np.testing.assert_array_equal(gone[:, 0], gone[:, 1])
        np.testing.assert_array_equal(gone[:, 2], gone[:, 3])
    for i in range(10):
        rolled = views(dn, SERIES, mix=0, gain=0, noise=0, shift=1.0)(i)
        np.testing.assert_array_equal(rolled, dn[0][rolled[:, 5].astype(int)])


def test_images_keep_type_and_range() -> None:
    dn = RNG.integers(0, 65536, (4, *IMAGE.shape)).astype(np.uint16)
    for i in range(8):
        found = views(dn, IMAGE, gain=1.0, noise=1.0)(i)
        assert found.shape == IMAGE.shape and found.dtype == np.uint16
    turned = views(dn[:1], IMAGE, mix=0, gain=0, noise=0)
    assert {tuple(turned(i).ravel()) for i in range(40)} == {
        tuple(np.rot90(m, k, (1, 2)).ravel()) for m in (dn[0], dn[0][:, :, ::-1]) for k in range(4)
    }


@settings(max_examples=60, deadline=None)
@given(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from([0.01, 1.0, 90.0]), st.floats(0, 1))
def test_places_stay_on_the_sphere(latitude: float, longitude: float, spread: float, uniform: float) -> None:
    dn = np.array([[latitude, longitude]], np.float32)
    for i in range(4):
        lat, lon = views(dn, PLACE, jitter_deg=(spread,), uniform=uniform)(i)
        assert -90 <= lat <= 90 and -180 <= lon <= 180


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdefghij"), min_size=10, max_size=80), st.integers(2, 4), st.integers(0, 5))
def test_a_group_lies_in_one_fold(groups: list[str], folds: int, seed: int) -> None:
    names = np.array(groups)
    if len(set(groups)) < folds:
        with pytest.raises(RequestError, match="folds need as many groups"):
            group_folds(names, folds, seed)
        return
    found = group_folds(names, folds, seed)
    assert set(found) == set(range(folds))
    assert all(len(set(found[names == g])) == 1 for g in set(groups))
    sizes = np.bincount(found)
    assert sizes.max() - sizes.min() <= max(groups.count(g) for g in set(groups))


def test_no_sample_left_is_refused() -> None:
    with pytest.raises(RequestError, match=r"lower data\.test\.fraction"):
        views(series()[:0], SERIES)


def test_series_move_with_their_places() -> None:
    spec = InputSpec(bands=tuple(BandSpec(name=n) for n in ("red", "latitude", "longitude")), layout="TC", frames=4, tile=1,
                     dtype="float32")  # fmt: skip
    dn = np.tile(np.array([[0.5, 10.0, 20.0]], np.float32), (1, 4, 1))
    near = views(dn, spec, mix=0, gain=0, noise=0, jitter_deg=(1.0,))
    for i in range(10):
        found = near(i)
        assert len(np.unique(found[:, 1])) == len(np.unique(found[:, 2])) == 1
        np.testing.assert_array_equal(found[:, 0], 0.5)
    assert len({float(near(i)[0, 1]) for i in range(10)}) > 5
