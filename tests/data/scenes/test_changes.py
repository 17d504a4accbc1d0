"""Changes of views: within the range of digital numbers, of the right direction, and drawn apart from everything else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.augment import STRENGTHS, AugmentSettings, Cell, ViewGenerator, ViewScene
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
    assert same == [some.cell(i) is None for i in range(24)] and 4 < sum(same) < 20
    assert not any(np.array_equal(plain(i), always(i)) for i in range(8))
    assert all(np.array_equal(plain(i), always.unchanged(i)) for i in range(4))  # type: ignore[arg-type]
    assert [some.unchanged(i) is None for i in range(24)] == same


def test_kinds_and_strengths_are_drawn_by_their_shares() -> None:
    made = views(changes=1.0, kinds=("noise", "haze"))
    assert {made.cell(i) for i in range(200)} == {Cell(k, p) for k in ("noise", "haze") for p in range(STRENGTHS)}
    one = made.drawn_by({Cell("haze", 2): 3.0, Cell("noise", 0): 1.0})
    found = [one.cell(i) for i in range(200)]
    assert 0.65 < np.mean([c == Cell("haze", 2) for c in found]) < 0.85
    assert made.shares != one.shares and np.array_equal(one(7), one(7))
    assert all(2 / 3 <= Cell("haze", 2).strength(np.random.default_rng(i)) <= 1 for i in range(20))


def test_an_unknown_kind_is_refused_by_its_nearest() -> None:
    with pytest.raises(RequestError, match=r"data\.augment\.kinds: 'haxe' is no kind of change \(nearest: 'haze'\)"):
        views(kinds=("haxe",))
