"""The offset of 1000 in Sentinel-2 products since baseline 04.00: taken off where somebody tells of it, suspected else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.geotiff import SceneReader

NAMES = ("blue", "green", "red", "nir")
SPEC = InputSpec(bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0.0) for n in NAMES), tile=32)
TRUE = np.random.default_rng(0).integers(100, 4000, (4, 64, 64)).astype(np.uint16)


def write(path: Path, values: np.ndarray, **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    where = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10), "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", count=4, height=64, width=64, **where) as f:
        f.write(values)
        f.descriptions = NAMES
        f.update_tags(**tags)
    return path


def with_offset() -> np.ndarray:
    values = (TRUE + 1000).astype(np.uint16)
    values[:, 0, :5] = 0  # the products' own nodata, which the offset leaves alone
    return values


def read(path: Path, spec: InputSpec = SPEC, **options: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    with SceneReader(path, spec, **options) as reader:
        return (*reader.read(0, 0, 64, 64), reader.warnings)


def product(offset: int | None, baseline: str) -> str:
    band = "" if offset is None else f'<BOA_ADD_OFFSET band_id="0">{offset}</BOA_ADD_OFFSET>' * 3
    return (
        f"<a><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
        f'<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>{band}</a>'
    )


def item(asset: dict[str, Any] | None = None, **properties: Any) -> str:
    assets = {"all": {"href": "./s.tif", **(asset or {})}}
    properties = {"platform": "sentinel-2b", **properties}
    return json.dumps({"type": "Feature", "stac_version": "1.0.0", "properties": properties, "assets": assets})


def beside(name: str, text: str) -> Callable[[Path], Path]:
    def place(folder: Path) -> Path:
        path = write(folder / "s.tif", with_offset())
        (folder / name).write_text(text)
        return path

    return place


def in_tree(folder: Path) -> Path:
    tree = folder / "S2A_MSIL2A_20230101.SAFE"
    path = write(tree / "GRANULE" / "L2A_T32UMD" / "IMG_DATA" / "R10m" / "s.tif", with_offset())
    (tree / "MTD_MSIL2A.xml").write_text(product(-1000, "05.09"))
    return path


@pytest.mark.parametrize(
    "place",
    [
        beside("MTD_MSIL2A.xml", product(-1000, "04.00")),
        beside("MTD_MSIL1C.xml", product(-1000, "05.10").replace("BOA", "RADIO")),
        in_tree,
        beside("item.json", item(**{"s2:processing_baseline": "04.00"})),
        beside("item.json", item(**{"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False})),
        beside("item.json", item({"raster:bands": [{"scale": 0.0001, "offset": -0.1}]})),
        lambda f: write(f / "s.tif", with_offset(), SPACECRAFT="Sentinel-2A", PROCESSING_BASELINE="04.00"),
        lambda f: write(f / "s.tif", with_offset(), PRODUCT_URI="S2A_MSIL2A_20230101T100411_N0509_R122_T32UMD.SAFE"),
    ],
)
def test_a_declared_offset_is_taken_off(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    dn, missing, warnings = read(place(tmp_path))
    assert missing.sum() == 5 and np.array_equal(dn[:, ~missing], TRUE[:, ~missing]) and not warnings


@pytest.mark.parametrize(
    "text",
    [
        item(**{"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}),
        item(
            {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]},
            **{"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True},
        ),
        item(**{"s2:processing_baseline": "02.09"}),
        item(platform="landsat-8"),
        "{not json",
    ],
)
def test_where_there_is_none_values_stay(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "s.tif", TRUE)
    (tmp_path / "item.json").write_text(text)
    dn, _, warnings = read(path)
    assert np.array_equal(dn, TRUE) and not warnings


@pytest.mark.parametrize("baseline", ["N0214", "N9999"])
def test_product_names_of_old_and_own_processing_declare_no_offset(tmp_path: Path, baseline: str) -> None:
    path = write(tmp_path / "s.tif", TRUE, PRODUCT_URI=f"S2A_MSIL2A_20230101T100411_{baseline}_R122_T32UMD.SAFE")
    dn, _, warnings = read(path)
    assert np.array_equal(dn, TRUE) and not warnings


def test_an_offset_that_is_off_already_is_not_taken_off_again(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", TRUE)
    (tmp_path / "MTD_MSIL2A.xml").write_text(product(-1000, "04.00"))
    with pytest.raises(RequestError, match=r"taken off already; say so with --scale 0\.0001"):
        read(path)
    dn, _, warnings = read(path, scale=1e-4)
    assert np.array_equal(dn, TRUE) and not warnings
    _, _, warnings = read(write(tmp_path / "s.tif", with_offset()), scale=1e-4)
    assert "leave it in" in warnings[0] and "--offset -0.1" in warnings[0]


def test_a_floor_near_1000_is_suspicious(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", (TRUE + 1000).astype(np.uint16))
    dn, _, warnings = read(path)
    assert dn.min() > 1000 and "--scale 0.0001 and --offset -0.1" in warnings[0]
    again, _, silent = read(path, scale=1e-4, offset=-0.1)
    assert np.array_equal(again, TRUE) and not silent


@pytest.mark.parametrize("dark", ["noise", "shadows", "a few pixels"])
def test_an_offset_is_seen_under_noise_darker_than_its_floor(tmp_path: Path, dark: str) -> None:
    """Water and overcorrected shadows lie around 0 in a band, and products hold what is below it as less than 1000."""
    rng = np.random.default_rng(1)
    true = TRUE.astype(float)
    if dark == "noise":
        true[3] = rng.normal(0, 80, true[3].shape)
    elif dark == "shadows":
        true[:, :16] = rng.uniform(-180, 100, true[:, :16].shape)
    else:
        true[:, 0, :20] = -900  # one in two hundred
    bare = write(tmp_path / "s.tif", np.rint(true + 1000).astype(np.uint16))
    assert "--scale 0.0001 and --offset -0.1" in read(bare)[2][0]
    before = read(write(tmp_path / "before.tif", np.rint(true.clip(1)).astype(np.uint16)))
    assert not any("04.00" in w for w in before[2])


def test_other_sensors_and_darker_scenes_are_not_suspected(tmp_path: Path) -> None:
    assert not read(write(tmp_path / "dark.tif", TRUE))[2]
    landsat = write(tmp_path / "landsat.tif", (TRUE + 1000).astype(np.uint16), SENSOR_ID="OLI_TIRS")
    assert not read(landsat)[2]


@pytest.mark.parametrize("tags", [{}, {"SPACECRAFT_ID": "LANDSAT_8"}])
@pytest.mark.parametrize(("scale", "offset", "level"), [(2.75e-5, -0.2, "surface"), (2e-5, -0.1, "top of atmosphere")])
def test_bare_numbers_of_other_products_are_told_and_the_advice_works(
    tmp_path: Path, tags: dict[str, str], scale: float, offset: float, level: str
) -> None:
    bare = np.rint((TRUE * 1e-4 - offset) / scale).astype(np.uint16)
    path = write(tmp_path / "s.tif", bare, **tags)
    warnings = read(path)[2]
    advised = re.search(r"--scale (\S+) and --offset (\S+) \(" + level, warnings[0])
    assert advised and (float(advised[1]), float(advised[2])) == (scale, offset)
    dn, _, silent = read(path, scale=float(advised[1]), offset=float(advised[2]))
    assert not silent and np.abs(dn.astype(int) - TRUE).max() <= 1
    assert not any("Landsat" in w for w in read(path, scale=1e-4)[2])


def test_models_that_take_digital_numbers_get_those_from_before(tmp_path: Path) -> None:
    bands = tuple(BandSpec(name=n, nodata=0.0) for n in NAMES)
    spec = InputSpec(bands=bands, tile=32, quantity="sentinel2_dn")
    path = beside("MTD_MSIL2A.xml", product(-1000, "04.00"))(tmp_path)
    dn, missing, _ = read(path, spec)
    assert np.array_equal(dn[:, ~missing], TRUE[:, ~missing])


def test_a_contract_with_the_offset_takes_the_product_as_it_is(tmp_path: Path) -> None:
    bands = tuple(BandSpec(name=n, scale=1e-4, offset=-0.1, nodata=0.0) for n in NAMES)
    path = beside("MTD_MSIL2A.xml", product(-1000, "04.00"))(tmp_path)
    dn, missing, warnings = read(path, InputSpec(bands=bands, tile=32))
    assert np.array_equal(dn, with_offset()) and missing.sum() == 5 and not warnings


@pytest.mark.parametrize("quantification", ["0", "1..2", "-5", "9" * 400, "nan"])
def test_a_product_that_says_nonsense_says_nothing(tmp_path: Path, quantification: str) -> None:
    from rsedge.data.scenes.sentinel2 import QUANTIFICATION, declared

    (tmp_path / "MTD_MSIL1C.xml").write_text(
        f"<a><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE><QUANTIFICATION_VALUE>{quantification}</QUANTIFICATION_VALUE></a>"
    )
    found = declared(tmp_path / "s.tif", {}, "sentinel-2")
    assert found is None or found.quantification == QUANTIFICATION
    assert declared(tmp_path / "s.tif", {"processing_baseline": "inf"}, "sentinel-2") in (found, None)
