"""Labelled objects on their image: one rule at its edges, whatever file they come from and whatever they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from rasterio.warp import transform

from rsedge.data.boxes.files import LabelledImage, read_box_file
from rsedge.data.boxes.geometry import TRUTH, places, upright_within
from rsedge.data.boxes.oriented import corners_of
from rsedge.data.boxes.placed import objects_on
from rsedge.data.errors import RequestError
from rsedge.data.scenes.grids import FinerGrid
from rsedge.data.scenes.raster_file import Transform
from rsedge.data.sets.sample_sources import load_samples

EDGE = 32
PLACE = Transform(0.5, 0.2, 500_000.0, 0.2, -0.5, 5_000_000.0)
GRID = FinerGrid(EDGE, EDGE, "EPSG:32633", PLACE)


def on_map(pixels: np.ndarray) -> np.ndarray:
    return np.stack(Affine(*PLACE) @ tuple(pixels.reshape(-1, 2).T), 1).reshape(pixels.shape)


def outline_file(path: Path, rings: np.ndarray, crs: str = "EPSG:32633") -> Path:
    """GeoJSON of outlines (n, 4, 2), given as columns and rows of the image."""
    points = on_map(rings)
    if crs == "EPSG:4326":
        points = np.stack(transform("EPSG:32633", crs, *points.reshape(-1, 2).T), 1).reshape(points.shape)
    features = [
        {"type": "Feature", "properties": {"label": "ship"}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring in points.tolist()
    ]
    content = {"type": "FeatureCollection", "features": features, "crs": {"properties": {"name": crs}}}
    path.write_text(json.dumps(content))
    return path


def squares(*corners: tuple[float, float, float, float]) -> np.ndarray:
    return np.array([[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in corners], np.float64)


def placed(path: Path, oriented: bool = True) -> Any:
    (one,) = read_box_file(path)
    return objects_on(one, Path("a.tif"), GRID, ["ship"], oriented)


AWAY = [(-9, 4, -1, 8), (40, 4, 50, 8), (4, -90, 8, -80), (4, 33, 8, 90), (-8, 4, 3, 8), (29.5, 4, 40, 8)]
THERE = [(-4, 4, 8, 8), (4, 4, 8, 8), (28, 4, 40, 8)]


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_outlines_elsewhere_are_left_out_and_counted(tmp_path: Path, crs: str) -> None:
    found = placed(outline_file(tmp_path / "a.geojson", squares(*AWAY[:3], *THERE, *AWAY[3:]), crs))
    whole = sorted((max(a, 0.0), float(b), min(c, 32.0), float(d)) for a, b, c, d in THERE)
    around = np.array([row[:4] for row in found.table])
    centre, size = (around[:, :2] + around[:, 2:]) / 2, np.sort(around[:, 2:] - around[:, :2], 1)
    wanted = np.array(whole)
    order = np.argsort(centre[:, 0])
    np.testing.assert_allclose(centre[order], (wanted[:, :2] + wanted[:, 2:]) / 2, atol=0.01)
    np.testing.assert_allclose(size[order], np.sort(wanted[:, 2:] - wanted[:, :2], 1), atol=0.01)
    (warning,) = found.warnings
    assert "a.geojson: 6 of 9 objects lie outside of a.tif, or with no more than 30% of their box in it" in warning
    assert "belong together" not in warning
    alone = placed(outline_file(tmp_path / "b.geojson", squares(*AWAY), crs))
    assert alone.table.shape == (0, 6) and "6 of 6 objects" in alone.warnings[0]
    assert alone.warnings[0].endswith("check that they belong together, and the file's coordinate reference system")
    assert not placed(outline_file(tmp_path / "c.geojson", squares(*THERE), crs)).warnings


def test_an_outline_where_the_scenes_system_holds_no_place_lies_elsewhere(tmp_path: Path) -> None:
    """The other side of the Earth, in a layer of the whole of it."""
    path = outline_file(tmp_path / "a.geojson", squares(*THERE), "EPSG:4326")
    content = json.loads(path.read_text())
    content["features"][0]["geometry"]["coordinates"] = [[[-75, 0], [-75, 0.1], [-74.9, 0.1], [-75, 0]]]
    content["features"][1]["geometry"]["coordinates"] = [[[15, 90], [16, 89.9], [17, 90], [15, 90]]]
    path.write_text(json.dumps(content))
    found = placed(path)
    assert len(found.table) == 1 and "2 of 3 objects" in found.warnings[0]


def test_entries_without_an_outline_are_told(tmp_path: Path) -> None:
    path = outline_file(tmp_path / "a.geojson", squares(*THERE))
    content = json.loads(path.read_text())
    content["features"][1]["geometry"] = None
    path.write_text(json.dumps(content))
    assert placed(path).warnings == (f"{path}: 1 of 3 objects have no outline and are left out",)


def test_boxes_in_pixels_are_of_their_image(tmp_path: Path) -> None:
    """One wholly outside is an error of the file; slivers go by the same rule as outlines."""

    def one(*boxes: tuple[float, ...]) -> LabelledImage:
        return LabelledImage("a.tif", boxes, ("ship",) * len(boxes), (EDGE, EDGE), "labels.csv: a.tif")

    for box in AWAY[:4]:
        with pytest.raises(RequestError, match=r"labels\.csv: a\.tif: the box from .* lies outside of a\.tif \(32x32"):
            objects_on(one(THERE[0], box), Path("a.tif"), GRID, ["ship"], False)
    found = objects_on(one(*THERE, *AWAY[4:]), Path("a.tif"), GRID, ["ship"], False)
    assert found.table[:, :4].tolist() == [[0, 4, 8, 8], [4, 4, 8, 8], [28, 4, 32, 8]] and "2 of 5" in found.warnings[0]
    with pytest.raises(RequestError, match=r"made for an image of 32x32 pixels, a\.tif has 16x16"):
        objects_on(one(), Path("a.tif"), FinerGrid(16, 16, None, PLACE), ["ship"], False)


ships = st.lists(
    st.tuples(st.floats(-20, 52), st.floats(-20, 52), st.floats(6, 20), st.floats(3, 6), st.floats(-1.57, 1.57)),
    min_size=1,
    max_size=8,
)


@given(ships)
@settings(max_examples=40, deadline=None)
def test_pixels_and_map_training_and_judging_have_the_same_objects(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[float, ...]]
) -> None:
    folder, table = tmp_path_factory.mktemp("p"), np.array(drawn)
    profile = {"driver": "GTiff", "height": EDGE, "width": EDGE, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(folder / "a.tif", "w", **profile, crs="EPSG:32633", transform=Affine(*PLACE)) as file:
        file.write(np.full((3, EDGE, EDGE), 9, np.uint8))
    rings = corners_of(table)
    outline_file(folder / "a.geojson", rings)
    found = placed(folder / "a.geojson")
    corners = found.table[:, :4]
    assert len(found.table) + sum(int(w.split(": ")[1].split()[0]) for w in found.warnings) == len(table)
    assert (corners[:, 2:] > corners[:, :2]).all()
    trained = load_samples("boxes", folder, annotations=["a.geojson"], tile=EDGE, classes=["ship"])
    assert trained.boxes is not None and trained.notes == tuple(
        w.replace("of a.tif", f"of {folder / 'a.tif'}") for w in found.warnings
    )
    np.testing.assert_allclose(trained.boxes[0], found.table, atol=1e-3)
    around = upright_within(places(found.table, TRUTH), (0, 0), (EDGE, EDGE))
    assert (around >= 0).all() and (around <= EDGE).all() and (around[:, 2:] > around[:, :2]).all()
    low, high = rings.min(1), rings.max(1)
    inside = ((low >= 0) & (high <= EDGE)).all(1)
    outside = ((high <= 0) | (low >= EDGE)).any(1)
    assert inside.sum() <= len(found.table) <= len(table) - outside.sum()
