"""Bands as people write them, by sensor, on the file's side and the contract's; and advice that works when it is followed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from rsedge.data.band_names import SENSORS, WAVELENGTHS_NM, band_at, canonical_band, name_bands, sensor_key
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.geotiff import SceneReader

RGBN = ("blue", "green", "red", "nir")


def contract(names: tuple[str, ...] = RGBN, sensor: str | None = None) -> InputSpec:
    return InputSpec(bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0.0, sensor=sensor) for n in names), tile=32)


def scene(path: Path, names: tuple[str | None, ...], tags: dict[str, str] | None = None, **profile: Any) -> Path:
    """A scene whose bands hold 1000, 2000, ... in the file's order."""
    profile = {"crs": "EPSG:32632", "transform": from_origin(500000, 5400000, 10, 10), "dtype": "uint16", **profile}
    colours = profile.pop("colours", None)
    with rasterio.open(path, "w", driver="GTiff", count=len(names), height=8, width=8, **profile) as f:
        if colours:
            f.colorinterp = colours
        for i, name in enumerate(names, start=1):
            f.write(np.full((8, 8), 1000 * i, profile["dtype"]), i)
            if name:
                f.set_band_description(i, name)
        f.update_tags(**(tags or {}))
    return path


def first_values(path: Path, spec: InputSpec | None = None, **options: Any) -> list[int]:
    with SceneReader(path, spec or contract(), **options) as reader:
        return [int(v) // 1000 for v in reader.read(0, 0, 1, 1)[0][:, 0, 0]]


@pytest.mark.parametrize(
    ("written", "sensor", "common"),
    [
        ("B2", "sentinel-2", "blue"),
        ("B02", "Sentinel-2A", "blue"),
        ("b02", "sentinel-2", "blue"),
        ("Band 4", "sentinel-2", "red"),
        ("Band 4", "LANDSAT_5", "nir08"),
        ("B04 (Red)", None, "red"),
        ("B4, central wavelength 665 nm", None, "red"),
        ("SR_B4", "landsat-8", "red"),
        ("SR_B4", "landsat-7", "nir08"),
        ("SR_B6", None, "swir16"),
        ("665 nm", None, "red"),
        ("0.665 um", None, "red"),
        ("842.0 Nanometers", None, "nir"),
        ("B8A - Narrow NIR", None, "nir08"),
        ("Near Infrared", None, "nir"),
        ("Shortwave Infrared 1", None, "swir16"),
        ("Red Edge 2", None, "rededge2"),
        ("Vegetation red edge (Red Edge 2)", None, "rededge2"),
        ("NIR, narrow NIR", None, "nir08"),
        ("Red Edge 1 to Red Edge 3", None, "red_edge_1_to_red_edge_3"),
        ("R", None, "red"),
        ("S2_B12", None, "swir22"),
        ("vv", None, "vv"),
        ("Band 5", None, "band_5"),
    ],
)
def test_names_as_people_write_them(written: str, sensor: str | None, common: str) -> None:
    assert canonical_band(written, sensor) == common


@pytest.mark.parametrize(
    ("nm", "common"), [(490, "blue"), (833, "nir"), (864, "nir08"), (2202, "swir22"), (1000, None)]
)
def test_wavelengths(nm: float, common: str | None) -> None:
    assert band_at(nm) == common


def test_what_only_one_sensor_has_tells_the_others() -> None:
    assert name_bands(["B02", "B03", "B04", "B08"]).names == RGBN
    assert name_bands(["SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6"]).sensor == "landsat-8"
    several = name_bands(["B2", "B3", "B4", "B8"])
    assert several.sensor is None and set(several.unclear[3].values()) == {"nir", "pan"}


def test_a_number_that_a_word_contradicts_is_not_believed() -> None:
    assert canonical_band("B4 (Red)", "landsat-5") == "red"
    assert name_bands(["B5 (Near Infrared)", "B4 (Red)"]).names == ("nir08", "red")


def test_sensors_by_what_products_call_them() -> None:
    said = {"OLI_TIRS": "landsat-8", "Landsat 9": "landsat-8", "ETM": "landsat-7", "landsat-5-tm": "landsat-5",
            "S2MSI2A": None, "MSI": "sentinel-2", "Sentinel-1A": None}  # fmt: skip
    assert {text: sensor_key(text) for text in said} == said
    assert all(sensor_key(name) == name for name in SENSORS)


def test_the_contract_may_number_its_bands_and_the_file_name_them(tmp_path: Path) -> None:
    spec = contract(("B4", "B8"), "sentinel-2")
    assert first_values(scene(tmp_path / "a.tif", ("nir", "red")), spec) == [2, 1]
    # Both number them: the contract's sensor is taken where the file tells none, and not where it tells another.
    assert first_values(scene(tmp_path / "b.tif", ("B8", "B4")), spec) == [2, 1]
    landsat = scene(tmp_path / "c.tif", ("B8", "B4"), {"SENSOR_ID": "OLI_TIRS"})
    with pytest.raises(RequestError, match="'B8' is missing"):
        first_values(landsat, spec)


def test_the_names_of_the_contract_itself_always_do(tmp_path: Path) -> None:
    spec = contract(("B2", "B3"))
    assert first_values(scene(tmp_path / "a.tif", ("B3", "B2")), spec) == [2, 1]
    assert first_values(scene(tmp_path / "b.tif", (None, None)), spec, bands=["B3", "B2"]) == [2, 1]


def test_a_sensor_with_one_near_infrared_answers_to_both_names(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", ("B2", "B3", "B4", "B5"), {"SPACECRAFT_ID": "LANDSAT_8"})
    assert first_values(path) == [1, 2, 3, 4]
    assert first_values(path, contract(("nir08",))) == [4]
    sentinel = scene(tmp_path / "b.tif", ("B2", "B3", "B4", "B8A"))
    with pytest.raises(RequestError, match="'nir' is missing"):
        first_values(sentinel)


@given(
    st.sampled_from([None, *SENSORS]),
    st.sampled_from([None, *SENSORS]),
    st.sampled_from(["tag", "option"]),
    st.booleans(),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_scene_of_another_sensor_than_the_contract_is_told_of(
    tmp_path: Path, found: str | None, wanted: str | None, how: str, training: bool
) -> None:
    path = scene(tmp_path / "s.tif", RGBN, {"SENSOR_ID": found} if found and how == "tag" else {})
    spec, options = contract(sensor=wanted), {"sensor": found} if found and how == "option" else {}
    with SceneReader(path, spec, training=training, gsd_m=10, **options) as reader:
        told = [w for w in reader.warnings if "is of" in w]
    families = [{"hls-l30": "landsat-8"}.get(s, s) for s in (found, wanted) if s]
    assert len(told) == (len(set(families)) == 2)
    assert all(f"is of {found}" in w and f"those of {wanted}" in w for w in told)


def test_what_tags_and_names_tell_of_the_sensor_is_held_against_the_contract(tmp_path: Path) -> None:
    for names, tags in (
        (RGBN, {"SENSOR_ID": "ETM+"}), (RGBN, {"SPACECRAFT_ID": "LANDSAT_7"}),
        (("Blue (B2)", "Green (B3)", "Red (B4)", "NIR (B5)"), {}),
    ):  # fmt: skip
        with SceneReader(scene(tmp_path / "s.tif", names, tags), contract(sensor="Sentinel-2")) as reader:
            assert any("is of landsat-" in w and "those of sentinel-2" in w for w in reader.warnings)


def test_naip_has_its_order_and_colours_are_names(tmp_path: Path) -> None:
    bare = scene(tmp_path / "naip.tif", (None,) * 4)
    with pytest.raises(RequestError, match="no descriptions"):
        first_values(bare)
    assert first_values(bare, sensor="naip") == [3, 2, 1, 4]
    assert first_values(scene(tmp_path / "tag.tif", (None,) * 4, {"SENSOR": "NAIP"})) == [3, 2, 1, 4]
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    spec = contract(("green", "red"))
    assert first_values(scene(tmp_path / "rgb.tif", (None,) * 3, colours=colours, photometric="RGB"), spec) == [2, 1]


def test_band_metadata_tell_wavelengths(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif", ("x1", "x2"))
    with rasterio.open(path, "r+") as f:
        f.update_tags(1, ns="IMAGERY", CENTRAL_WAVELENGTH_UM="0.665")
        f.update_tags(2, wavelength="842", wavelength_units="Nanometers")
    assert first_values(path, contract(("nir", "red"))) == [2, 1]


@pytest.mark.parametrize(
    "names",
    [
        ("B2", "B3", "B4", "B8"),
        ("SR_B2", "SR_B3", "SR_B4", "SR_B5"),
        (None, None, None, None),
        (None, None, None, None, None),
        ("blue", "green", "red", "other"),
        ("blue", "green", "red", "narrow NIR"),
        ("Blue (B2)", "Green (B3)", "Red (B4)", "Narrow NIR (B8A)"),
        ("B2 (Blue)", "B3", "B4", "B8"),
    ],
)
def test_advice_works_when_it_is_followed(tmp_path: Path, names: tuple[str | None, ...]) -> None:
    path = scene(tmp_path / "s.tif", names)
    with pytest.raises(RequestError) as caught:
        first_values(path)
    ways = re.findall(r"--(bands|sensor) ([\w,-]+)", str(caught.value))
    assert ways, str(caught.value)
    for option, value in ways:
        assert first_values(path, **{option: value.split(",") if option == "bands" else value}) == [1, 2, 3, 4]


WRITTEN = {
    "blue": ("Blue", "blue"), "green": ("Green", "green"), "red": ("Red", "red"), "nir": ("NIR", "Near Infrared", "nir08"),
    "nir08": ("NIR", "Near Infrared", "nir08"),
}  # fmt: skip
FORMS = (
    "{word} (B{number})",
    "B{number} - {word}",
    "Band {number} {word}",
    "SR_B{number}",
    "B{number}",
    "{word}",
    "B{number:0>2}",
)


@st.composite
def of_a_sensor(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    """A sensor, and its blue, green, red and near infrared as somebody writes them, in that order."""
    sensor = draw(st.sampled_from(sorted(SENSORS)))
    numbers = {name: number for number, name in SENSORS[sensor].numbers.items()}
    names = [n for n in (*RGBN[:3], "nir" if "nir" in numbers else "nir08") if n in numbers]
    form = draw(st.one_of(st.sampled_from(FORMS).map(lambda f: (f,) * 4), st.tuples(*[st.sampled_from(FORMS)] * 4)))
    return sensor, tuple(
        f.format(word=draw(st.sampled_from(WRITTEN[n])), number=numbers[n]) for f, n in zip(form, names, strict=True)
    )


@given(of_a_sensor(), st.sampled_from([None, "sentinel-2", "landsat-8"]), st.booleans())
@example(("naip", ("Blue (B3)", "B2", "Red (B1)", "B04")), None, False)  # the zero alone had chosen modis
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bands_of_a_sensor_are_read_or_the_advice_works(
    tmp_path: Path, written: tuple[str, tuple[str, ...]], contracts: str | None, with_sensor: bool
) -> None:
    sensor, names = written
    path, spec = scene(tmp_path / "s.tif", names), contract(sensor=contracts)
    said = {"sensor": sensor} if with_sensor else {}
    try:
        assert first_values(path, spec, **said)[3] == 4
    except RequestError as error:
        for option, value in re.findall(r"--(bands|sensor) ([\w,-]+)", str(error)):
            chosen = {option: value.split(",") if option == "bands" else value}
            assert len(first_values(path, spec, **(said | chosen))) == 4


@pytest.mark.parametrize("sensor", sorted(SENSORS))
def test_words_beside_numbers_are_enough(tmp_path: Path, sensor: str) -> None:
    numbers = {name: number for number, name in SENSORS[sensor].numbers.items()}
    near = "nir" if "nir" in numbers else "nir08"
    names = [
        f"{word} (B{numbers[n]})" for word, n in zip(("Blue", "Green", "Red", "NIR"), (*RGBN[:3], near), strict=True)
    ]
    assert first_values(scene(tmp_path / "s.tif", tuple(names))) == [1, 2, 3, 4]


def test_words_and_numbers_choose_the_sensor_together() -> None:
    assert name_bands(["Blue (B2)", "Green (B3)", "Red (B4)", "NIR (B5)"]).sensor == "landsat-8"
    assert name_bands(["Blue (B2)", "Green (B3)", "Red (B4)", "NIR (B8)"]).sensor == "sentinel-2"
    assert name_bands(["B02 Blue", "B05 NIR"]).sensor == "hls-l30"


@given(
    st.sampled_from(
        ["std", "mean", "median", "count", "mask", "stddev", "p90", "max", "QA", "valid", "uncertainty", "class"]
    ),
    st.sampled_from(["nir", "red", "Blue", "B4", "B04", "SR_B5", "B8A", "Near Infrared", "B04 (Red)", "842 nm"]),
    st.sampled_from(["{band}_{made}", "{made}_{band}", "{band} {made}", "{band} ({made})", "{made} of {band}"]),
    st.sampled_from([None, "sentinel-2", "landsat-8"]),
)
@settings(max_examples=100, deadline=None)
def test_what_is_made_of_a_band_is_not_the_band(made: str, band: str, form: str, sensor: str | None) -> None:
    name = form.format(made=made, band=band)
    assert canonical_band(name, sensor) not in WAVELENGTHS_NM
    assert name_bands([name], wavelengths_nm=[842.0]).names[0] not in WAVELENGTHS_NM


def test_a_statistic_stands_beside_its_band_and_is_never_advised(tmp_path: Path) -> None:
    both = scene(tmp_path / "a.tif", ("nir_std", "red_count", "blue", "green", "red", "nir"))
    assert first_values(both) == [3, 4, 5, 6]
    alone = scene(tmp_path / "b.tif", ("blue", "green", "red", "nir_std"))
    with pytest.raises(RequestError, match=r"'nir' is missing.*does not hold what the model needs"):
        first_values(alone)
    assert canonical_band("Red, wavelength range 630-690 nm") == "red"


def test_there_is_no_advice_where_nothing_would_help(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        first_values(scene(tmp_path / "s.tif", ("blue", "green", "red")))
    assert "--" not in str(caught.value) and "does not hold what the model needs" in str(caught.value)
    with pytest.raises(RequestError, match=r"sensor 'sentinel-3' is unknown \(nearest: 'sentinel-2'\)"):
        first_values(tmp_path / "s.tif", sensor="sentinel-3")


def test_names_that_only_count_are_not_read_as_the_contracts_sensor(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif", ("Band 1", "Band 2", "Band 3", "Band 4"))
    spec = contract(("blue", "green", "red"), "sentinel-2")
    with pytest.raises(RequestError, match=r"say which sensor it is with .*--sensor naip .*--sensor sentinel-2"):
        first_values(path, spec)
    assert first_values(path, spec, sensor="naip") == [3, 2, 1]
    assert first_values(path, spec, sensor="sentinel-2") == [2, 3, 4]
    assert first_values(scene(tmp_path / "t.tif", ("Band 2", "Band 3", "Band 4")), spec) == [1, 2, 3]


@pytest.mark.parametrize("names", [("B02", "B03", "B04", "B05"), ("B1", "B2", "B3", "B4")])
def test_a_supposed_sensor_that_lacks_a_band_is_told_with_those_that_have_it(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    path, spec = scene(tmp_path / "s.tif", names), contract(sensor="sentinel-2")
    with pytest.raises(RequestError, match="numbers were read as of sentinel-2: if it is of another sensor") as caught:
        first_values(path, spec)
    for sensor in re.findall(r"--sensor (\S+)", str(caught.value)):
        assert sorted(first_values(path, spec, sensor=sensor)) == [1, 2, 3, 4]
