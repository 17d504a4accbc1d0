"""The band contract: DN arithmetic, nodata and selection by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rsedge.data.band_names import canonical_band
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError


def spec(names: tuple[str, ...] = ("blue", "green", "red"), **band: float) -> InputSpec:
    return InputSpec(bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0, mean=0.2, std=0.1, **band) for n in names))


def test_select_gives_the_contract_order_whatever_the_file_order() -> None:
    assert spec().select(["red", "swir16", "blue", "green"], "x.tif") == [2, 3, 0]


@pytest.mark.parametrize("have", [["red", "green"], ["red", "green", "bleu"], ["red", "green", "blue", "blue"]])
def test_missing_or_double_bands_are_refused_by_name(have: list[str]) -> None:
    with pytest.raises(RequestError, match=r"x\.tif.*'blue'"):
        spec().select(have, "x.tif")


@given(st.integers(1, 65535))
def test_physical_and_back_is_the_same_number(dn: int) -> None:
    s = spec()
    values = np.full((3, 4, 4), dn, dtype=np.uint16)
    assert np.array_equal(s.to_dn(s.to_physical(values)), values)


def test_nodata_pixels_become_the_mean_and_are_marked() -> None:
    s = spec()
    dn = np.full((3, 2, 2), 3000, dtype=np.uint16)
    dn[:, 0, 0] = 0
    dn[0, 1, 1] = 0  # one band only: still valid
    assert s.valid(dn).tolist() == [[False, True], [True, True]]
    assert np.allclose(s.normalise(dn)[:, 0, 0], 0)
    assert np.allclose(s.normalise(dn)[:, 0, 1], 1.0, atol=1e-5)


def test_valid_pixels_never_become_nodata() -> None:
    assert int(spec().to_dn(np.full((3, 1, 1), -0.5, dtype=np.float32)).min()) == 1


@pytest.mark.parametrize(
    ("name", "sensor", "expected"),
    [
        ("B02", "sentinel-2", "blue"),
        ("b8a", "sentinel-2", "nir08"),
        ("B5", None, "b5"),
        ("SWIR1", None, "swir16"),
        ("Red ", None, "red"),
    ],
)
def test_canonical_names(name: str, sensor: str | None, expected: str) -> None:
    assert canonical_band(name, sensor) == expected


@pytest.mark.parametrize("bad", [{"std": 0.0}, {"scale": 0.0}, {"valid_range": (1.0, 0.0)}, {"unknown": 1}])
def test_nonsense_contracts_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BandSpec(name="blue", **bad)  # type: ignore[arg-type]


def test_json_round_trip() -> None:
    s = spec()
    assert InputSpec.model_validate_json(s.model_dump_json()) == s


def stretched(low: float, high: float, levels: int | None = None, **band: float) -> InputSpec:
    bands = (BandSpec(name="red", stretch=(low, high), **band),)
    return InputSpec(bands=bands, normalisation="stretch", levels=levels)


def test_stretch_clips_and_cuts_to_whole_levels() -> None:
    dn = np.array([[[0, 3, 4, 87, 88, 500]]], dtype=np.uint16)
    levels = stretched(3, 88, 255).normalise(dn) * 255
    assert levels.round(3).tolist() == [[[0, 0, 3, 252, 255, 255]]]
    half = stretched(0, 100, 10).normalise(np.array([[[15, 19, 20]]], dtype=np.uint16))
    assert np.allclose(half, [[[0.1, 0.1, 0.2]]])


@given(st.integers(0, 88 - 3))
def test_values_that_are_whole_levels_stay_whole(step: int) -> None:
    """SeCo's blue: 85 digital numbers onto 255 levels, three levels each, none lost to rounding."""
    dn = np.array([[[3 + step]]], dtype=np.uint16)
    assert np.rint(stretched(3, 88, 255).normalise(dn) * 255).item() == 3 * step


@given(st.lists(st.integers(1, 60000), min_size=2, max_size=9, unique=True), st.sampled_from([1.0, 1e-4, -0.5]))
def test_image_minmax_spans_0_to_1_whatever_the_scale(values: list[int], scale: float) -> None:
    spec = InputSpec(bands=(BandSpec(name="red", scale=scale, nodata=0),), normalisation="image_minmax")
    dn = np.array([[[*values, 0]]], dtype=np.uint16)
    out = spec.normalise(dn)
    assert (out[..., :-1].min(), out[..., :-1].max(), out[0, 0, -1]) == (0, 1, 0)


def test_image_minmax_of_an_even_or_empty_image_is_finite() -> None:
    spec = InputSpec(bands=(BandSpec(name="red", nodata=0),), normalisation="image_minmax")
    for value in (0, 7):
        assert not spec.normalise(np.full((1, 2, 2), value, dtype=np.uint16)).any()


def test_neutral_values_normalise_to_0() -> None:
    spec = stretched(3, 88, mean=0.4, std=0.2)
    dn = spec.to_dn(spec.neutral()[:, None, None])
    assert abs(spec.normalise(dn).item()) < 0.05


@pytest.mark.parametrize(
    ("layout", "more", "shape"),
    [
        ("CHW", {}, (2, 32, 32)),
        ("TCHW", {"frames": 3}, (3, 2, 32, 32)),
        ("TC", {"frames": 12}, (12, 2)),
        ("C", {}, (2,)),
    ],
)
def test_layouts_have_their_shapes_and_masks(layout: str, more: dict[str, int], shape: tuple[int, ...]) -> None:
    bands = tuple(BandSpec(name=n, nodata=0, mean=1, std=2) for n in ("a", "b"))
    s = InputSpec(bands=bands, layout=layout, tile=32, **more)  # type: ignore[arg-type]
    assert s.shape == shape
    dn = np.full((5, *shape), 5, dtype=np.uint16)
    assert s.normalise(dn).shape == (5, *shape) and (s.normalise(dn) == 2).all()
    without = [n for i, n in enumerate((5, *shape)) if i != 1 + layout.index("C")]
    assert s.valid(dn).shape == tuple(without) and s.valid(dn).all()
    assert not s.valid(np.zeros_like(dn)).any()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"normalisation": "stretch"}, "no stretch for red"),
        ({"levels": 255}, "go with normalisation stretch"),
        ({"frames": 2}, "has no times"),
        ({"tile": 8}, "at least 16 pixels"),
        ({"layout": "C", "normalisation": "image_minmax"}, "needs an image"),
    ],
)
def test_contracts_that_contradict_themselves_are_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InputSpec.model_validate({"bands": [{"name": "red"}], **more})


def test_contracts_written_before_the_normalisations_still_read() -> None:
    old = '{"bands":[{"name":"red","scale":1e-4,"mean":0.2,"std":0.1}],"layout":"CHW","dtype":"uint16","tile":256}'
    assert InputSpec.model_validate_json(old).normalisation == "linear"
