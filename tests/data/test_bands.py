"""The band contract: DN arithmetic, nodata and selection by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rsedge.data.bands import BandSpec, InputSpec, canonical_band
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
