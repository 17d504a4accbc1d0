"""Places in ENVI headers: GDAL and our own reader find what was written, and what cannot be said is refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from rsedge.data.errors import RequestError
from rsedge.data.scenes.envi import EnviRaster
from rsedge.data.scenes.envi_place import place_fields
from rsedge.data.scenes.points import Points
from rsedge.data.scenes.raster_file import Transform
from rsedge.runtimes.inference import raster_out
from rsedge.runtimes.inference.vectors import check_chips

PLACE = Transform(10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6)
DEGREES = Transform(0.001, 0.0, 11.0, 0.0, -0.002, 48.0)
OWN = CRS.from_user_input("+proj=laea +lat_0=47.5 +lon_0=11.3 +datum=WGS84")
SHEARED = Transform(10.0, 2.0, 5e5, 0.0, -10.0, 5.4e6)
TURNED = Transform(6.0, 8.0, 5e5, 8.0, -6.0, 5.4e6)


def scene(folder: Path, transform: Transform | None, crs: Any, points: Points | None = None) -> Any:
    np.savez(folder / "s.npz", image=np.ones((1, 3, 4), np.uint8))
    return SimpleNamespace(
        path=folder / "s.npz", height=3, width=4, crs=crs, transform=transform, points=points or Points()
    )


@pytest.mark.parametrize(
    ("crs", "place"),
    [
        (CRS.from_epsg(32633), PLACE),
        (CRS.from_epsg(3035), PLACE),
        (CRS.from_epsg(3413), PLACE),
        (CRS.from_epsg(28992), PLACE),
        (CRS.from_epsg(3857), PLACE),
        (CRS.from_epsg(4258), DEGREES),
        (OWN, PLACE),
        (CRS.from_user_input("OGC:CRS84"), DEGREES),
        ("EPSG:3035", PLACE),
        ("EPSG:4326", DEGREES),
        (OWN.to_wkt(), PLACE),
        (OWN.to_wkt(version="WKT2_2019"), PLACE),
        (CRS.from_epsg(3035), TURNED),
        (CRS.from_epsg(32733), Transform(10.0, 0.0, 5e5, 0.0, 20.0, 5.4e6)),
        (None, PLACE),
    ],
)
def test_outputs_open_at_their_place(tmp_path: Path, crs: Any, place: Transform) -> None:
    path = tmp_path / "o.img"
    raster_out.write_grid(path, scene(tmp_path, place, crs), ["a"], np.ones((1, 3, 4), np.float32), ["a"], 1)
    with rasterio.open(path) as theirs, EnviRaster(path) as ours:
        assert np.allclose(list(theirs.transform)[:6], place) and np.allclose(ours.transform, place)
        if crs is None:
            assert ours.crs is None and theirs.crs.to_wkt().startswith("LOCAL_CS")
            return
        wanted = CRS.from_user_input(crs)
        assert theirs.crs == wanted and CRS.from_user_input(ours.crs) == wanted
        assert wanted.to_epsg() is None or str(ours.crs) == f"EPSG:{wanted.to_epsg()}" or wanted == OWN


@pytest.mark.parametrize(
    ("crs", "place", "points", "words"),
    [
        (CRS.from_epsg(32633), SHEARED, None, "sheared"),
        (None, SHEARED, None, "sheared"),
        (CRS.from_epsg(32633), Transform(-10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6), None, "mirrored"),
        (CRS.from_epsg(32633), Transform(6.0, 4.0, 5e5, 8.0, -3.0, 5.4e6), None, "not square"),
        (CRS.from_epsg(4979), DEGREES, None, "has no WKT 1"),
        (None, None, Points(gcps=(object(),)), "control points or RPC"),
    ],
)
def test_what_a_header_cannot_say_is_refused_before_any_work(
    tmp_path: Path, crs: Any, place: Transform | None, points: Points | None, words: str
) -> None:
    reader = scene(tmp_path, place, crs, points)
    for check in (
        lambda: raster_out.check_rasters(reader, [tmp_path / "o.img"]),
        lambda: check_chips(tmp_path / "o.img", reader),
    ):
        with pytest.raises(RequestError, match=rf"s\.npz.*{words}.*write a GeoTIFF"):
            check()
    raster_out.check_rasters(reader, [tmp_path / "o.tif"])
    check_chips(tmp_path / "o.parquet", reader)


def test_without_rasterio_wkt_passes_and_codes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = CRS.from_epsg(3035).to_wkt()
    monkeypatch.setitem(sys.modules, "rasterio.crs", None)
    found = place_fields(PLACE, text, tmp_path)
    assert found["map info"].startswith("{Lambert Azimuthal Equal Area, 1, 1, 500000.0")
    assert found["coordinate system string"] == f"{{{text}}}"
    assert "coordinate system string" not in place_fields(PLACE, "EPSG:32633", tmp_path)
    with pytest.raises(RequestError, match=r"EPSG:3035 as WKT needs rasterio.*give the scene its crs as WKT 1"):
        place_fields(PLACE, "EPSG:3035", tmp_path)


@pytest.mark.parametrize(
    "text", ["EPSG:3035", "/etc/passwd", 'PROJCS["a', 'PROJCS["a",EXTENSION["PROJ4","+nadgrids=/a/b"]]']
)
def test_odd_systems_of_headers_are_told_of(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.img").write_bytes(bytes(12))
    (tmp_path / "a.hdr").write_text(
        "ENVI\nsamples = 4\nlines = 3\nbands = 1\ndata type = 1\n"
        f"map info = {{Polar, 1, 1, 0, 0, 1, 1}}\ncoordinate system string = {{{text}}}\n"
    )
    with EnviRaster(tmp_path / "a.hdr") as file:
        assert file.crs is None and "without WKT" in file.unread[0]
