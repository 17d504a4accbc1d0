"""Objects of whole scenes: each once, however the scene is cut, and where they lie on the globe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.boxes.files import read_box_file
from rsedge.data.boxes.geometry import cornered, overlaps, places
from rsedge.data.boxes.oriented import corners_of
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.inference.detect import detect_scene, evaluate_boxes, infer_boxes
from rsedge.runtimes.inference.object_files import write_boxes
from tests.data.boxes.test_oriented_boxes import inside

TILE = 32
SPEC = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), tile=TILE, dtype="uint8", quantity="colour")
SETTINGS = BoxSettings(score=0.3)


class Squares:
    """An exact detector of bright rectangles: what stands in for a network, with the interface of a session.

    A rectangle that the tile cuts is found as far as it is seen, as a network would.
    """

    input_spec, device, runtime = SPEC, "CPU", "numpy"

    def stream(self, inputs: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        for one in inputs:
            yield {"logits": self._candidates(one["dn"][0])[None], "valid": np.ones((1, TILE, TILE), np.uint8)}

    def _candidates(self, dn: np.ndarray) -> np.ndarray:
        found = np.zeros((40, 7), np.float32)
        for row, value in zip(found, np.unique(dn[0][dn[0] >= 100]), strict=False):
            y, x = np.nonzero(dn[0] == value)
            x0, x1, y0, y1 = x.min(), x.max() + 1, y.min(), y.max() + 1
            row[:] = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, value / 255, value % 2 == 0, value % 2 == 1
        return found


def scene(path: Path, objects: list[tuple[int, int, int, int]], height: int, width: int, **profile: Any) -> Path:
    values = np.full((2, height, width), 20, np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(objects):
        values[:, y0:y1, x0:x1] = 100 + number
    options = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5), **profile}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=2, dtype="uint8", **options
    ) as file:
        file.write(values)
    return path


def reader(path: Path) -> SceneReader:
    return SceneReader(path, SPEC, bands=["red", "nir"])


@given(st.integers(TILE, 110), st.integers(TILE, 110), st.sampled_from([12, 14, 16]), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_every_object_is_found_once_and_whole(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, overlap: int, seed: int
) -> None:
    """Objects up to the overlap in size, wherever tiles begin."""
    rng = np.random.default_rng(seed)
    objects = []
    for y in range(0, height - 14, 14):
        for x in range(0, width - 14, 14):
            if rng.random() < 0.5 and len(objects) < 150:
                w, h = rng.integers(3, 11, 2)
                objects.append((x + 1, y + 1, int(x + 1 + w), int(y + 1 + h)))
    with reader(scene(tmp_path_factory.mktemp("s") / "scene.tif", objects, height, width)) as opened:
        found = detect_scene(Squares(), opened, SETTINGS, overlap)  # type: ignore[arg-type]
    assert sorted(map(tuple, found[:, :4].astype(int).tolist())) == sorted(objects)
    assert (np.diff(found[:, 4]) <= 0).all()


OBJECTS = [(10, 6, 20, 14), (28, 30, 40, 38), (61, 40, 70, 52)]


def test_geojson_is_longitude_and_latitude_counterclockwise(tmp_path: Path) -> None:
    out = tmp_path / "objects.geojson"
    turned = from_origin(500_000, 5_000_000, 0.5, 0.5) * Affine.rotation(30)
    with reader(scene(tmp_path / "s.tif", OBJECTS, 64, 80, transform=turned)) as opened:
        record = infer_boxes(Squares(), opened, out, ["even", "odd"], SETTINGS, {"bundle": "b"})  # type: ignore[arg-type]
    content = json.loads(out.read_text())
    assert content["type"] == "FeatureCollection" and content["rsedge"] == {"bundle": "b"}
    assert record["objects"] == {"even": 2, "odd": 1} and len(content["features"]) == 3
    for feature in content["features"]:
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring.shape == (5, 2) and (ring[0] == ring[-1]).all()
        x, y = ring[:-1].T
        assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0
        x0, y0, x1, y1 = feature["properties"]["pixels"]
        expected = [turned * corner for corner in ((x0, y0), (x0, y1), (x1, y1), (x1, y0))]
        lon, lat = transform("EPSG:32633", "EPSG:4326", *zip(*expected, strict=True))
        wanted = {(round(a, 6), round(b, 6)) for a, b in zip(lon, lat, strict=True)}
        assert {(round(a, 6), round(b, 6)) for a, b in ring.tolist()} == wanted
        assert feature["properties"]["class"] in ("even", "odd") and 0.3 < feature["properties"]["score"] <= 1


def test_a_table_is_read_back_as_labels(tmp_path: Path) -> None:
    out = tmp_path / "objects.csv"
    with reader(scene(tmp_path / "s.tif", OBJECTS, 64, 80)) as opened:
        infer_boxes(Squares(), opened, out, ["even", "odd"], SETTINGS, {})  # type: ignore[arg-type]
        record = evaluate_boxes(Squares(), opened, out, ["even", "odd"], SETTINGS)  # type: ignore[arg-type]
        (image,) = read_box_file(out)
        assert sorted(image.boxes) == sorted(tuple(map(float, o)) for o in OBJECTS)
        assert record["ap50"] == record["ap50_95"] == record["f1"] == 1.0 and record["objects"] == 3
        out.write_text(out.read_text().replace("odd", "strange"))
        with pytest.raises(RequestError, match="class 'strange', the bundle finds even, odd"):
            evaluate_boxes(Squares(), opened, out, ["even", "odd"], SETTINGS)  # type: ignore[arg-type]
        out.write_text(out.read_text().replace("s.tif,61", "other.tif,61"))
        (tmp_path / "two.csv").write_text(out.read_text().replace("s.tif", "third.tif"))
        with pytest.raises(RequestError, match=r"none of them named s\.tif"):
            evaluate_boxes(Squares(), opened, tmp_path / "two.csv", ["even", "odd"], SETTINGS)  # type: ignore[arg-type]


def test_objects_of_a_layer_that_lie_beyond_the_scene_are_none_of_it(tmp_path: Path) -> None:
    """A layer of a whole district: what lies elsewhere is not missed, and what the edge cuts is judged by what is seen."""
    out = tmp_path / "objects.geojson"
    with reader(scene(tmp_path / "s.tif", [*OBJECTS, (72, 5, 80, 12)], 64, 80)) as opened:
        infer_boxes(Squares(), opened, out, ["even", "odd"], SETTINGS, {})  # type: ignore[arg-type]
        content = json.loads(out.read_text())
        cut = next(f for f in content["features"] if f["properties"]["pixels"][0] == 72)
        ring = np.array(cut["geometry"]["coordinates"][0])
        east = ring[:, 0] > ring[:, 0].mean()
        ring[east, 0] += ring[east, 0].max() - ring[~east, 0].max()
        cut["geometry"]["coordinates"] = [ring.tolist()]
        for shift in (0.01, -0.01, 40):
            far = json.loads(json.dumps(cut))
            far["geometry"]["coordinates"] = [(ring + np.array([shift, 0])).tolist()]
            content["features"].append(far)
        out.write_text(json.dumps(content))
        record = evaluate_boxes(Squares(), opened, out, ["even", "odd"], SETTINGS)  # type: ignore[arg-type]
        assert record["objects"] == 4 and record["ap50"] == record["ap50_95"] == record["f1"] == 1.0
        (warning,) = record["label_warnings"]
        assert "objects.geojson: 3 of 7 objects lie outside of" in warning
        (tmp_path / "o.csv").write_text("image,xmin,ymin,xmax,ymax,label\ns.tif,90,4,99,9,odd\n")
        with pytest.raises(RequestError, match=r"from 90, 4 lies outside of .*s\.tif \(80x64 pixels\)"):
            evaluate_boxes(Squares(), opened, tmp_path / "o.csv", ["even", "odd"], SETTINGS)  # type: ignore[arg-type]


def test_nodata_hides_objects_and_broken_models_are_said(tmp_path: Path) -> None:
    path = scene(tmp_path / "s.tif", OBJECTS, 64, 80, nodata=101)
    with reader(path) as opened:
        found = detect_scene(Squares(), opened, SETTINGS)  # type: ignore[arg-type]
        assert len(found) == 2

        class Broken(Squares):
            def _candidates(self, dn: np.ndarray) -> np.ndarray:
                return np.full((3, 7), np.nan, np.float32)

        with pytest.raises(IntegrityError, match="NaN or infinity in the tile at row 0, column 0"):
            detect_scene(Broken(), opened, SETTINGS)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="--overlap must lie between 0 and half a tile"):
            detect_scene(Squares(), opened, SETTINGS, 20)  # type: ignore[arg-type]


def test_a_tile_that_fails_is_listed_and_the_scene_goes_on(tmp_path: Path) -> None:
    class Once(Squares):
        def _candidates(self, dn: np.ndarray) -> np.ndarray:
            found = super()._candidates(dn)
            return found * np.nan if found[0, 4] == np.float32(102 / 255) else found

    path = scene(tmp_path / "s.tif", OBJECTS, 64, 80)
    with reader(path) as opened:
        record = infer_boxes(Once(), opened, tmp_path / "o.csv", ["even", "odd"], SETTINGS, {})  # type: ignore[arg-type]
        lost = record["run"]["failed_tiles"]
        assert record["objects"] == {"even": 1, "odd": 1} and record["run"]["failed_tiles_count"] == len(lost) >= 1
        assert all("NaN" in one["why"] for one in lost) and record["run"]["tiles"] > len(lost)
        with pytest.raises(IntegrityError, match="NaN or infinity"):
            evaluate_boxes(Once(), opened, tmp_path / "o.csv", ["even", "odd"], SETTINGS)  # type: ignore[arg-type]


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    none = np.zeros((0, 6), np.float32)
    with reader(scene(tmp_path / "s.tif", OBJECTS, 64, 80, crs=None)) as opened:
        with pytest.raises(RequestError, match=r"--output objects\.csv"):
            write_boxes(tmp_path / "objects.geojson", opened, none, ["a"], {})
        with pytest.raises(RequestError, match=r"written as \.geojson, \.gpkg, \.parquet or \.csv"):
            write_boxes(tmp_path / "objects.shp", opened, none, ["a"], {})
        write_boxes(tmp_path / "objects.csv", opened, none, ["a"], {})
    assert (tmp_path / "objects.csv").read_text().count("\n") == 1


class Ships(Squares):
    """An exact detector of turned rectangles, each of a brightness of its own, which it knows by heart."""

    def __init__(self, ships: np.ndarray) -> None:
        self.ships = ships

    def _candidates(self, dn: np.ndarray) -> np.ndarray:
        found = np.zeros((40, 9), np.float32)
        for row, value in zip(found, np.unique(dn[0][dn[0] >= 100]), strict=False):
            y, x = np.nonzero(dn[0] == value)
            ship = self.ships[value - 100]
            # Where it lies in the tile is told by the pixels that are seen: whole ones by their middle.
            row[:4] = x.mean() + 0.5, y.mean() + 0.5, *ship[2:4]
            row[4:7] = value / 255, 1, 0
            row[7:] = 0.5 * np.cos(2 * ship[4]), 0.5 * np.sin(2 * ship[4])
        return found


def ship_scene(path: Path, seed: int = 0, **profile: Any) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(seed)
    ships = []
    for y in range(10, 80, 16):
        for x in range(10, 100, 16):
            if rng.random() < 0.7:
                ships.append(
                    [x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), rng.uniform(9, 12), 4, rng.uniform(-1.5, 1.5)]
                )
    table = np.array(ships)
    values = np.full((2, 90, 106), 20, np.uint8)
    pixels = np.stack(np.meshgrid(np.arange(106) + 0.5, np.arange(90) + 0.5), -1).reshape(-1, 2)
    for number, ship in enumerate(table):
        values[:, inside(ship, pixels).reshape(90, 106)] = 100 + number
    options = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5), **profile}
    with rasterio.open(path, "w", driver="GTiff", height=90, width=106, count=2, dtype="uint8", **options) as file:
        file.write(values)
    return path, table


TURNED = SETTINGS.model_copy(update={"oriented": True})


@pytest.mark.parametrize("overlap", [12, 14, 16])
def test_turned_objects_are_found_once_whatever_the_seams(tmp_path: Path, overlap: int) -> None:
    path, ships = ship_scene(tmp_path / "s.tif", overlap)
    with reader(path) as opened:
        found = detect_scene(Ships(ships), opened, TURNED, overlap)  # type: ignore[arg-type]
        assert found.shape == (len(ships), 7)
        shares = overlaps(places(found, 6), cornered(ships))
        assert (shares.max(1) > 0.75).all() and sorted(shares.argmax(1)) == list(range(len(ships)))
        write_boxes(tmp_path / "s.csv", opened, found, ["even", "odd"], {})
        again = evaluate_boxes(Ships(ships), opened, tmp_path / "s.csv", ["even", "odd"], TURNED, overlap)  # type: ignore[arg-type]
        assert again["ap50"] == again["f1"] == 1.0 and again["objects"] == len(ships)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".parquet"])
def test_four_corners_lie_where_they_are_and_headings_are_those_on_the_ground(tmp_path: Path, suffix: str) -> None:
    """On a scene that is turned, with pixels twice as wide as they are high."""
    geopandas = pytest.importorskip("geopandas")
    pyproj = pytest.importorskip("pyproj")
    skew = from_origin(580_000, 5_000_000, 1, 0.5) @ Affine.rotation(30)
    path, ships = ship_scene(tmp_path / "s.tif", transform=skew)
    table = np.column_stack([cornered(ships)[:, :4], np.full(len(ships), 0.9), np.arange(len(ships)) % 2, ships[:, 4]])
    out = tmp_path / f"o{suffix}"
    with reader(path) as opened:
        write_boxes(out, opened, table.astype(np.float32), ["even", "odd"], {"bundle": "b"})
        write_boxes(tmp_path / f"none{suffix}", opened, np.zeros((0, 7), np.float32), ["even", "odd"], {})
    read = geopandas.read_parquet if suffix == ".parquet" else geopandas.read_file
    found, corners = read(out).to_crs("EPSG:32633"), corners_of(ships)
    assert len(read(tmp_path / f"none{suffix}")) == 0 and found["class"].tolist()[:2] == ["even", "odd"]
    for number, outline in enumerate(found.geometry):
        ring = np.array(outline.exterior.coords)
        wanted = np.stack(skew @ tuple(corners[number].T), 1)
        apart = np.linalg.norm(ring[:, None] - wanted[None], axis=2)
        assert len(ring) == 5 and (apart.min(0) < 0.02).all()
    geod = pyproj.Geod(ellps="WGS84")
    half = np.stack([np.cos(ships[:, 4]), -np.sin(ships[:, 4])], 1) * ships[:, 2:3] / 2
    ends = [np.stack(skew @ tuple((ships[:, :2] + sign * half).T), 1) for sign in (-1, 1)]
    degrees = [np.stack(transform("EPSG:32633", "EPSG:4326", *e.T), 1) for e in ends]
    azimuth = np.array([geod.inv(*a, *b)[0] for a, b in zip(*degrees, strict=True)])
    apart = (found["heading"].to_numpy() - azimuth + 90) % 180 - 90
    assert np.abs(apart).max() < 0.05 and found["heading"].between(0, 180).all()
    np.testing.assert_allclose(found["length"], ships[:, 2], atol=0.02)
