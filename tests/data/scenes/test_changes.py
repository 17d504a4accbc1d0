"""Changes of views: within the range of digital numbers, of the right direction, and drawn apart from everything else."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.augment import AugmentSettings, ViewGenerator, ViewScene
from rsedge.data.scenes.changes import CHANGES, LIMITS, Seen, groundlike
from rsedge.data.scenes.fractal import FractalBank
from rsedge.data.sets.scene_sources import SIX

WAVELENGTHS = np.array([WAVELENGTHS_NM[n] for n in SIX])
SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, wavelength_nm=w, scale=1e-4, nodata=0) for n, w in zip(SIX, WAVELENGTHS, strict=True)),
    tile=48,
)
SEEN = Seen(WAVELENGTHS, 20.0, FractalBank(0, size=64, count=2))


def scenery(seed: int = 0, low: float = 0.02, high: float = 0.5) -> np.ndarray:
    """Steps and grain, so that blur, shifts and stripes all change something."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(low, high, (6, 12, 12)).repeat(4, 1).repeat(4, 2)
    return (coarse * rng.uniform(0.9, 1.1, (6, 48, 48))).astype(np.float32)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16), strength=st.floats(0, 1), level=st.floats(0.001, 1.2))
@pytest.mark.parametrize("kind", CHANGES)
def test_what_comes_out_is_reflectance_and_no_nodata(kind: str, seed: int, strength: float, level: float) -> None:
    image = np.clip(scenery(seed) * level / 0.25, *LIMITS).astype(np.float32)
    before = image.copy()
    out = CHANGES[kind](image, strength, SEEN, np.random.default_rng(seed))
    assert np.array_equal(image, before), "the image given is changed in place"
    assert out.shape == image.shape and out.dtype == np.float32 and np.isfinite(out).all()
    assert LIMITS[0] <= out.min() and out.max() <= LIMITS[1]
    assert SPEC.valid(SPEC.to_dn(out)).all(), "a pixel became nodata"


@pytest.mark.parametrize("kind", CHANGES)
def test_a_stronger_change_goes_further(kind: str) -> None:
    image = scenery()
    far = [
        np.mean([np.abs(CHANGES[kind](image, s, SEEN, np.random.default_rng(i)) - image).mean() for i in range(6)])
        for s in (0.0, 1.0)
    ]
    assert 0 < far[0] < far[1] < 0.5


@pytest.mark.parametrize("kind", CHANGES)
def test_every_row_says_where_its_bounds_come_from(kind: str) -> None:
    row = CHANGES[kind]
    assert row.bounds[0] < row.bounds[1] and len(row.source) > 20 and row.what and row.unit


def test_haze_is_bluer_and_a_low_sun_darker() -> None:
    dark = np.full((6, 48, 48), 0.02, np.float32)
    for seed in range(4):
        haze = CHANGES["haze"](dark, 0.7, SEEN, np.random.default_rng(seed)).mean((1, 2))
        assert (np.diff(haze) < 0).all() and haze[0] > 0.02
        sun = CHANGES["low-sun"](scenery(), 0.7, SEEN, np.random.default_rng(seed)).mean((1, 2)) / scenery().mean(
            (1, 2)
        )
        assert (sun < 0.9).all() and sun[0] > sun[-1]


def test_ground_changes_leave_clouds() -> None:
    image = scenery(low=0.02, high=0.1)
    image[:, :20] = 0.6
    ground = groundlike(image, SEEN)[0]
    assert (ground[:20] == 0).all() and (ground[20:] == 1).all()
    for kind, sign in (("dark-ground", -1), ("bright-ground", 1)):
        out = CHANGES[kind](image, 0.8, SEEN, np.random.default_rng(0))
        assert np.array_equal(out[:, :20], image[:, :20])
        assert (sign * (out[:, 20:] - image[:, 20:]) > 0).all()


def test_coarser_pixels_keep_the_mean_and_lose_contrast() -> None:
    image = scenery()
    for seed in range(5):
        out = CHANGES["resolution"](image, 1.0, SEEN, np.random.default_rng(seed))
        assert out[-1].std() < 0.8 * image[-1].std() and out[-1].mean() == pytest.approx(image[-1].mean(), rel=0.03)


def views(**changes: object) -> ViewGenerator:
    scene = ViewScene(
        "a", np.random.default_rng(5).uniform(0.05, 0.3, (6, 96, 96)).astype(np.float32), np.ones((96, 96), bool), 10.0
    )
    return ViewGenerator([scene], SPEC, AugmentSettings(**changes), 3)  # type: ignore[arg-type]


def test_views_without_a_change_stay_as_they_were() -> None:
    plain, some, always = views(), views(changes=0.5), views(changes=1.0)
    same = [np.array_equal(plain(i), some(i)) for i in range(24)]
    assert same == [not some.changes(i) for i in range(24)] and 4 < sum(same) < 20
    assert not any(np.array_equal(plain(i), always(i)) for i in range(8))
    assert all(np.array_equal(plain(i), always.unchanged(i)) for i in range(4))  # type: ignore[arg-type]
    assert [some.unchanged(i) is None for i in range(24)] == same


def test_kinds_are_drawn_alike_and_the_same_each_time() -> None:
    made = views(changes=1.0, kinds=("noise", "haze"))
    found = [made.changes(i) for i in range(200)]
    assert set(found) == {("noise",), ("haze",)} and 0.4 < np.mean([kinds == ("haze",) for kinds in found]) < 0.6
    assert found == [made.changes(i) for i in range(200)] and np.array_equal(made(7), made(7))


def test_several_kinds_at_once_happen_to_the_ground_then_to_the_light_then_in_the_sensor() -> None:
    made = views(changes=1.0, at_once=4)
    found = [made.changes(i) for i in range(200)]
    assert {len(kinds) for kinds in found} == {1, 2, 3, 4} and all(len(set(kinds)) == len(kinds) for kinds in found)
    stages = ["ground", "light", "sensor"]
    assert all([stages.index(CHANGES[k].when) for k in kinds] == sorted(stages.index(CHANGES[k].when) for k in kinds)
               for kinds in found)  # fmt: skip
    assert max(len(views(changes=1.0, at_once=9, kinds=("gain", "haze")).changes(i)) for i in range(20)) == 2


def test_both_of_two_kinds_are_seen_in_a_view() -> None:
    one, other = (views(changes=1.0, kinds=(kind,)) for kind in ("resolution", "gain"))
    both = views(changes=1.0, at_once=2, kinds=("resolution", "gain"))
    number = next(i for i in range(50) if len(both.changes(i)) == 2)
    plain, coarse, bright, made = (
        v.astype(float) for v in (both.unchanged(number), one(number), other(number), both(number))
    )
    assert np.abs(made - coarse * (bright.mean() / plain.mean())).max() < 5 < np.abs(made - coarse).max()


def test_steady_views_are_changed_when_they_are_read_and_not_before() -> None:
    plain, steady = views(), views(changes=0.5, at_once=3, steady=True)
    assert all(np.array_equal(plain(i), steady(i)) and steady.unchanged(i) is None for i in range(6))
    read = [steady.changed(plain(0), np.random.default_rng(i)) for i in range(24)]
    same = [np.array_equal(plain(0), one) for one in read]
    assert 4 < sum(same) < 20 and {one.dtype for one in read} == {plain(0).dtype}
    changed = [one for one, alike in zip(read, same, strict=True) if not alike]
    assert not any(np.array_equal(changed[0], other) for other in changed[1:]), "anew each time"
    assert all(
        np.array_equal(one, steady.changed(plain(0), np.random.default_rng(i))) for i, one in enumerate(read[:6])
    )


def test_strengths_cover_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []
    row = dataclasses.replace(CHANGES["gain"], apply=lambda image, value, *_: (drawn.append(value), image)[1])
    monkeypatch.setitem(CHANGES, "gain", row)
    made, (low, high) = views(changes=1.0, kinds=("gain",)), row.bounds
    for i in range(24):
        made(i)
    assert low <= min(drawn) < low + (high - low) / 4 and high - (high - low) / 4 < max(drawn) <= high


def test_an_unknown_kind_is_refused_by_its_nearest() -> None:
    with pytest.raises(RequestError, match=r"data\.augment\.kinds: 'haxe' is no kind of change \(nearest: 'haze'\)"):
        views(kinds=("haxe",))
