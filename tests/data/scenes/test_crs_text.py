"""Systems of strangers' files: a code or WKT, and nothing that opens a file or an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS

from rsedge.data.errors import RequestError
from rsedge.data.scenes.array_files import NpzRaster
from rsedge.data.scenes.crs_text import crs_text

LAEA = CRS.from_user_input("+proj=laea +lat_0=47.5 +lon_0=11.3 +datum=WGS84").to_wkt()


def npz(path: Path, crs: Any) -> Path:
    np.savez(path, image=np.ones((1, 2, 2), np.uint8), crs=crs, transform=[2, 0, 0, 0, -2, 0])
    return path


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("EPSG:32633", "EPSG:32633"),
        (" epsg:3035 ", "EPSG:3035"),
        (4326, "EPSG:4326"),
        (b"EPSG:3413", "EPSG:3413"),
        (CRS.from_epsg(3413).to_wkt(), "EPSG:3413"),
        (CRS.from_epsg(3857).to_wkt(version="WKT2_2019"), "EPSG:3857"),
        (LAEA, LAEA),
    ],
)
def test_codes_and_wkt_are_systems(tmp_path: Path, value: Any, wanted: str) -> None:
    found = NpzRaster(npz(tmp_path / "a.npz", value)).crs
    assert found == wanted
    if not isinstance(value, bytes):
        assert CRS.from_user_input(found) == CRS.from_user_input(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "FILE",
        "https://example.org/crs.wkt",
        "/vsicurl/https://example.org/crs.wkt",
        "+proj=utm +zone=33",
        "OGC:CRS84",
        '{"type": "GeographicCRS"}',
        "urn:ogc:def:crs:EPSG::32633",
        "PROJCS[",
        f"{LAEA}]",
        f"{LAEA},{LAEA}",
        'PROJCS["{"]',
        'PROJCS["a',
        LAEA.replace('"unknown"', '"' + "x" * (64 << 10) + '"', 1),
        LAEA[:-1] + ',EXTENSION["PROJ4","+proj=laea +nadgrids=/etc/passwd"]]',
    ],
)
def test_nothing_else_is(tmp_path: Path, value: str) -> None:
    """A file of WKT, too, which GDAL would open."""
    (tmp_path / "crs.wkt").write_text(LAEA)
    with pytest.raises(RequestError, match="EPSG code"):
        NpzRaster(npz(tmp_path / "a.npz", str(tmp_path / "crs.wkt") if value == "FILE" else value))


def test_several_systems_are_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'crs' holds 2 texts"):
        NpzRaster(npz(tmp_path / "a.npz", ["EPSG:3035", "EPSG:32633"]))


def test_the_field_is_named() -> None:
    with pytest.raises(RequestError, match=r"a\.npz: 'crs' is 'x y'"):
        crs_text("x\ny", "a.npz: 'crs'")
