"""Views of one contract under another: bands, dates, bands of another sensor."""

from __future__ import annotations

import numpy as np
import pytest

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.contract_view import ContractView, response_weights
from rsedge.data.errors import RequestError
from rsedge.recipe.contracts import contracts
from rsedge.recipe.student import StudentSection

WAVES = {"blue": 490.0, "green": 560.0, "red": 665.0, "nir": 842.0}
SPEC = InputSpec(
    bands=tuple(
        BandSpec(name=n, wavelength_nm=w, scale=1e-4, nodata=0, mean=0.1 * i, std=0.1 + 0.1 * i, sensor="sentinel-2")
        for i, (n, w) in enumerate(WAVES.items())
    ),
    tile=16,
)
SERIES = SPEC.model_copy(update={"layout": "TCHW", "frames": 3})


def dn(spec: InputSpec, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 9000, (count, *spec.shape)).astype(np.uint16)


def student(**fields: object) -> StudentSection:
    return StudentSection.model_validate(fields)


def test_a_student_that_says_nothing_sees_what_the_teacher_sees() -> None:
    found = contracts(SPEC, student())
    assert found.data == SPEC and found.student.target == SPEC and found.student.is_same
    given = dn(SPEC)
    assert found.student(given) is given


def test_bands_are_taken_as_they_are_in_the_students_order() -> None:
    view = contracts(SPEC, student(bands=["nir", "green"])).student
    given = dn(SPEC)
    assert np.array_equal(view(given), given[:, [3, 1]]) and np.array_equal(view(given[0]), given[0, [3, 1]])
    assert view.target.band_names == ("nir", "green") and view.target.bands[0] == SPEC.bands[3]


def test_common_names_name_the_teachers_own() -> None:
    bands = tuple(
        b.model_copy(update={"name": n}) for b, n in zip(SPEC.bands, ("B02", "B03", "B04", "B08"), strict=True)
    )
    found = contracts(SPEC.model_copy(update={"bands": bands}), student(bands=["red"]))
    assert found.student.target.band_names == ("B04",)


@pytest.mark.parametrize(("dates", "layout", "kept"), [(1, "CHW", [2]), (2, "TCHW", [1, 2]), ((0, 2), "TCHW", [0, 2])])
def test_dates_are_the_last_ones_or_those_that_are_numbered(dates: object, layout: str, kept: list[int]) -> None:
    view = contracts(SERIES, student(dates=dates)).student
    given = dn(SERIES)
    assert view.target.layout == layout and view.target.shape == view(given).shape[1:]
    assert np.array_equal(view(given).reshape(2, len(kept), 4, 16, 16), given[:, kept])


def test_series_of_one_date_stay_series() -> None:
    series = InputSpec(bands=SPEC.bands, layout="TC", frames=4)
    view = contracts(series, student(bands=["red", "nir"], dates=1)).student
    given = dn(series)
    assert view.target.shape == (1, 2) and np.array_equal(view(given), given[:, -1:, 2:])


def test_a_band_of_another_sensor_is_its_share_of_the_spectrum() -> None:
    bands = [{"name": "yellow", "wavelength_nm": 612.5}, "nir"]
    view = contracts(SPEC, student(bands=bands, sensor="planetscope")).student
    given = dn(SPEC)
    middle = (given[:, 1].astype(float) + given[:, 2]) / 2
    assert np.abs(view(given)[:, 0] - middle).max() <= 0.51 and np.array_equal(view(given)[:, 1], given[:, 3])
    made = view.target.bands[0]
    assert made.sensor == "planetscope" and made.mean == pytest.approx(0.15) and made.std == pytest.approx(0.25)
    given[0, 2, 5, 5] = 0
    assert view(given)[0, 0, 5, 5] == 0, "made of a missing value"
    assert view.words == ["yellow: 0.50 green + 0.50 red"]


def test_a_wide_band_takes_of_all_that_it_covers_and_nearest_of_one() -> None:
    narrow, wide = (response_weights(665, width, SPEC.bands, False, "band") for width in (10.0, 300.0))
    assert narrow["red"] > 0.95 and set(wide) == set(WAVES) and sum(wide.values()) == pytest.approx(1)
    assert response_weights(700, 300, SPEC.bands, True, "band") == {"red": 1.0}


def test_a_band_that_the_teacher_lacks_is_read_from_the_data() -> None:
    read = {"name": "VV", "polarisation": "VV", "scale": 1e-2, "mean": -12.0, "std": 4.0}
    found = contracts(SPEC, student(bands=[read, "red"]))
    assert found.data.band_names == (*SPEC.band_names, "VV") and found.student.target.band_names == ("VV", "red")
    given = dn(found.data)
    assert np.array_equal(found.student(given), given[:, [4, 2]])
    assert np.array_equal(ContractView.by_name(found.data, SPEC)(given), given[:, :4])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bands": ["gren"]}, "nearest: 'green'"),
        ({"bands": [{"name": "swir", "wavelength_nm": 1610}]}, "768 nm beyond"),
        ({"bands": ["red", "red"]}, r"^student\.bands: band names occur twice: red$"),
        ({"dates": 1}, "has no dates"),
        ({"bands": 4}, "4 of the teacher's 4: give 1 to 3"),
        ({"bands": 0}, "give 1 to 3"),
        ({"bands": ["red"], "sensor": "planetscope"}, "no band is made"),
        ({"resample": "nearest"}, "no band is made"),
        ({"bands": [{"name": "red", "mean": 0.1, "std": 0.1}]}, "without mean and std"),
    ],
)
def test_what_cannot_be_seen_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        contracts(SPEC, student(**fields))


@pytest.mark.parametrize("field", ["bands", "dates"])
def test_yes_is_no_number(field: str) -> None:
    with pytest.raises(ValueError, match="valid integer"):
        StudentSection.model_validate({"name": "slim-unet", field: True})


@pytest.mark.parametrize("dates", [4, 0, (0, 0), (3,)])
def test_dates_that_there_are_not_are_refused(dates: object) -> None:
    with pytest.raises(RequestError, match="of a teacher of 3 dates"):
        contracts(SERIES, student(dates=dates))


def test_views_are_told_apart_where_contracts_are_alike() -> None:
    turned = contracts(SERIES, student(dates=(2, 1, 0))).student
    whole = ContractView.by_name(SERIES, SERIES)
    assert turned.target == SERIES and not whole.sees_as(turned)
    assert whole.sees_as(contracts(SERIES, student()).student)
    mixed = ContractView(SPEC, SPEC, np.full((4, 4), 0.25, np.float32))
    assert not ContractView.by_name(SPEC, SPEC).sees_as(mixed)
