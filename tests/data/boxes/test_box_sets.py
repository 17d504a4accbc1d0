"""Files of boxes in three layouts give the same samples; what is wrong with one is said with file, place and fix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from rasterio.warp import transform

from rsedge.data.boxes.files import POINT_COLUMNS, read_box_file
from rsedge.data.boxes.geometry import centred, places
from rsedge.data.boxes.oriented import corners_of, regular
from rsedge.data.errors import RequestError
from rsedge.data.scenes.grids import FinerGrid
from rsedge.data.scenes.raster_file import Transform
from rsedge.data.sets.sample_sources import load_samples
from rsedge.runtimes.inference.geopackage import write_polygons

OBJECTS = [(3, 4, 13, 12, "car"), (20, 2, 29, 9, "ship"), (30, 30, 36, 40, "car"), (44, 10, 52, 20, "car")]


def picture(path: Path, width: int = 64, height: int = 48, **profile: object) -> None:
    values = np.random.default_rng(0).integers(1, 255, (3, height, width)).astype(np.uint8)
    kind = {".png": "PNG", ".tif": "GTiff", ".jpg": "JPEG"}[path.suffix]
    options = {"driver": kind, "width": width, "height": height, "count": 3, "dtype": "uint8", **profile}
    if kind == "GTiff":
        options["photometric"] = "RGB"
    with rasterio.open(path, "w", **options) as file:
        file.write(values)


def voc(objects: list[tuple[int, int, int, int, str]], image: str = "a.png", size: tuple[int, int] = (64, 48)) -> str:
    items = "".join(
        f"<object><name>{n}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d, n in objects
    )
    return (f"<annotation><filename>{image}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
            f"{items}</annotation>")  # fmt: skip


def coco(objects: list[tuple[int, int, int, int, str]], image: str = "a.png") -> str:
    names = {"car": 7, "ship": 2}
    return json.dumps({
        "images": [{"id": 5, "file_name": image, "width": 64, "height": 48}],
        "categories": [{"id": i, "name": n} for n, i in names.items()],
        "annotations": [
            {"id": k, "image_id": 5, "category_id": names[n], "bbox": [a, b, c - a, d - b]}
            for k, (a, b, c, d, n) in enumerate(objects)
        ] + [{"id": 99, "image_id": 5, "category_id": 2, "bbox": [0, 0, 64, 48], "iscrowd": 1}],
    })  # fmt: skip


def table(objects: list[tuple[int, int, int, int, str]], image: str = "a.png") -> str:
    rows = "".join(f"{image},{a},{b},{c},{d},{n}\n" for a, b, c, d, n in objects)
    return f"image_path,xmin,ymin,xmax,ymax,label\n{rows}empty.png,,,,,\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "empty.png"):
        picture(tmp_path / name)
    (tmp_path / "a.xml").write_text(voc(OBJECTS))
    (tmp_path / "a.json").write_text(coco(OBJECTS))
    (tmp_path / "a.csv").write_text(table(OBJECTS))
    return tmp_path


@pytest.mark.parametrize("name", ["a.xml", "a.json", "a.csv"])
def test_three_layouts_give_the_same_samples(folder: Path, name: str) -> None:
    samples = load_samples("boxes", folder, annotations=[name], tile=16)
    assert samples.bands == ("red", "green", "blue") and samples.layout == "CHW" and samples.classes == ("car", "ship")
    assert len(samples) == (24 if name == "a.csv" else 12) and samples.values.max() <= 1
    assert samples.boxes is not None and samples.group is not None
    first = samples.boxes[0]
    # The car of the first tile; the ship belongs to the second, where its centre lies.
    assert first.tolist() == [[3, 4, 13, 12, 0]] and samples.boxes[1].tolist() == [[4, 2, 13, 9, 1]]
    assert sum(map(len, samples.boxes)) == len(OBJECTS)
    assert sorted(set(samples.group[:12])) == [f"image 0 {r}-{c}" for r in (0, 1) for c in (0, 1)]
    assert samples.cells is not None and samples.cells[:5].tolist() == [[0, 0, c] for c in range(4)] + [[0, 1, 0]]
    whole = load_samples("boxes", folder, annotations=[name], tile=16, block=0)
    assert whole.group is not None and set(whole.group[:12]) == {"image 0"} and whole.cells is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 44), st.integers(1, 9), st.integers(1, 9)), max_size=12))
@settings(max_examples=25, deadline=None)
def test_every_box_goes_to_one_tile_and_stays_inside_it(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("boxes")
    picture(folder / "a.png")
    objects = [(x, y, min(x + w, 64), min(y + h, 48), "car") for x, y, w, h in places]
    (folder / "a.xml").write_text(voc(objects))
    samples = load_samples("boxes", folder, annotations=["*.xml"], tile=16, classes=["car"])
    assert samples.boxes is not None and sum(map(len, samples.boxes)) == len(objects)
    for boxes in samples.boxes:
        assert (boxes[:, :4] >= 0).all() and (boxes[:, :4] <= 16).all()


def test_missing_pixels_and_bands(folder: Path) -> None:
    picture(folder / "b.tif", nodata=7)
    (folder / "b.xml").write_text(voc(OBJECTS, "b.tif"))
    samples = load_samples("boxes", folder, annotations=["b.xml"], tile=16)
    assert samples.bands == ("red", "green", "blue")
    filled = load_samples(
        "boxes", folder, annotations=["b.xml"], tile=16, missing=0.5, bands=["nir", "red", "green"], scale=1.0
    )
    assert filled.bands == ("nir", "red", "green") and filled.values.max() > 100 and not np.isnan(filled.values).any()


def outline(properties: dict[str, str], kind: str = "Polygon", coordinates: object = None) -> str:
    ring = [[[15.0, 45.0], [15.1, 45.0], [15.1, 45.1], [15.0, 45.0]]] if coordinates is None else coordinates
    feature = {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": ring}}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


BAD = [
    ("x.xml", "<annotation><filename>a.png</filename>", "not readable as XML"),
    ("x.xml", "<html/>", "no Pascal VOC file"),
    ("x.xml", '<!DOCTYPE a [<!ENTITY b "cccc">]><annotation>&b;</annotation>', "document type"),
    ("x.xml", voc([(5, 5, 5, 9, "car")]), "object 1: the box 5, 5 to 5, 9 has no area"),
    ("x.xml", voc(OBJECTS).replace("<xmin>20</xmin>", ""), "object 2: xmin: None is no number"),
    ("x.xml", voc(OBJECTS, size=(10, 10)), "made for an image of 10x10 pixels, .* has 64x48"),
    ("x.xml", voc([(70, 4, 80, 9, "car")]), "from 70, 4 lies outside"),
    ("x.xml", voc(OBJECTS, "gone.png"), "gone.png does not exist"),
    ("x.xml", voc([(1, 1, 5, 5, "tank")]), "class 'tank' is not in classes"),
    ("x.json", "{", "not valid JSON"),
    ("x.json", "[]", "needs the lists images, annotations and categories"),
    ("x.json", coco(OBJECTS).replace('"category_id": 2', '"category_id": 3'), "category_id 3 is not in the file"),
    ("x.json", coco(OBJECTS).replace('"bbox"', '"box"'), "annotations\\[0\\] has no bbox"),
    ("x.csv", "image,xmin,ymin\n", "no column xmax"),
    ("x.csv", table([(1, 1, 5, 5, "")]), "line 2: label is missing"),
    ("x.csv", table(OBJECTS).replace("20,2,", "20,two,"), "line 3: ymin: 'two' is no number"),
    ("x.shp", "", "boxes come as Pascal VOC"),
    ("x.txt", "imagesource:google\n1 2 9 2 9 5 1 5", "line 2: 8 words; DOTA's lines have eight numbers"),
    ("x.txt", "1 2 9 two 9 5 1 5 ship 0", "line 1: y2: 'two' is no number"),
    ("x.txt", "1 2 9 2 5 2 3 2 ship 0", "line 1: its outline has no area"),
    ("x.csv", "image,x1,y1,x2,y2,x3,y3,x4,label\n", "no column y4"),
    (
        "x.csv",
        f"image,xmin,ymin,xmax,ymax,{','.join(POINT_COLUMNS)},label\n",
        r"corners in two forms \(columns xmin and x1\)",
    ),
    (
        "x.csv",
        "image,x1,xmin,ymin,xmax,ymax,label\na.png,1,1,1,5,5,car\n",
        r"corners in two forms \(columns xmin and x1\)",
    ),
    ("x.csv", "image,xmin,ymin,xmax,ymax,xmin,label\n", "has the column xmin twice"),
    ("x.geojson", "[]", "no GeoJSON file"),
    (
        "x.geojson",
        outline({"name": "ship"}),
        r"features\[0\]: its class is missing; name it in the field label or class",
    ),
    ("x.geojson", outline({"label": "ship"}, "LineString"), r"features\[0\]: geometry of type LineString"),
    ("x.geojson", outline({"label": "ship"}, coordinates=[[["a", 2]]]), r"features\[0\]: its coordinates are no rings"),
    ("x.gpkg", "no database", "not readable as a GeoPackage"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD)
def test_bad_files_are_named_with_place_and_fix(folder: Path, name: str, content: str, words: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(RequestError, match=words) as error:
        load_samples("boxes", folder, annotations=[name], tile=16, classes=["car", "ship"])
    assert name in str(error.value)


def test_entities_do_not_grow(folder: Path) -> None:
    lines = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 9))
    (folder / "bomb.xml").write_text(f'<!DOCTYPE x [<!ENTITY a0 "ha">{lines}]><annotation>&a8;</annotation>')
    with pytest.raises(RequestError, match="document type"):
        read_box_file(folder / "bomb.xml")


def test_wrong_options(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"no file in .* fits 'c\*.xml'"):
        load_samples("boxes", folder, annotations=["c*.xml"], tile=16)
    with pytest.raises(RequestError, match="smaller than the tile of 512"):
        load_samples("boxes", folder, annotations=["a.xml"], tile=512)
    with pytest.raises(RequestError, match="tile"):
        load_samples("boxes", folder, annotations=["a.xml"])
    with pytest.raises(RequestError, match="no such file"):
        load_samples("boxes", folder, annotations=["gone.json"], tile=16)


SHIPS = np.array([[20, 14, 16, 5, 0.6], [44, 30, 12, 4, -1.2], [12, 38, 9, 3, np.pi / 2 - 0.01]])
PLACE = Affine(0.5, 0.2, 500_000, 0.2, -0.5, 5_000_000)  # Turned, so that rows are no parallels.


def ship_files(folder: Path) -> None:
    """The same ships as a table, DOTA's lines, GeoJSON and GeoPackage."""
    picture(folder / "ships.tif", crs="EPSG:32633", transform=PLACE)
    corners = corners_of(SHIPS)
    rows = [[*ring.ravel(), "ship"] for ring in corners]
    head = "image,x1,y1,x2,y2,x3,y3,x4,y4,label\n"
    (folder / "ships.csv").write_text(head + "".join(f"ships.tif,{','.join(map(str, row))}\n" for row in rows))
    lines = "".join(f"{' '.join(map(str, row))} 0\n" for row in rows)
    (folder / "ships.txt").write_text(f"imagesource:GoogleEarth\ngsd:0.5\n{lines}")
    x, y = (np.array(v) for v in PLACE @ tuple(corners.reshape(-1, 2).T))
    rings = np.stack([x, y], 1).reshape(-1, 4, 2)
    closed = np.concatenate([rings, rings[:, :1]], 1)
    write_polygons(folder / "ships.gpkg", "objects", closed, {"class": str}, [["ship"]] * 3, "EPSG:32633", {})
    degrees = np.stack(transform("EPSG:32633", "EPSG:4326", x, y), 1).reshape(-1, 4, 2).tolist()
    features = [
        {
            "type": "Feature",
            "properties": {"label": "ship"},
            "geometry": {"type": "MultiPolygon", "coordinates": [[ring]]},
        }
        for ring in degrees
    ]
    (folder / "ships.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.mark.parametrize("name", ["ships.csv", "ships.txt", "ships.geojson", "ships.gpkg"])
def test_turned_boxes_come_of_four_kinds_of_files(tmp_path: Path, name: str) -> None:
    ship_files(tmp_path)
    samples = load_samples("boxes", tmp_path, annotations=[name], tile=48)
    assert samples.boxes is not None and samples.classes == ("ship",) and len(samples) == 1
    found = regular(centred(places(samples.boxes[0], 5)))
    np.testing.assert_allclose(found[:, :4], SHIPS[:, :4], atol=0.02)
    np.testing.assert_allclose(np.sin(found[:, 4] - SHIPS[:, 4]), 0, atol=0.01)


def test_outlines_need_an_image_that_lies_somewhere_and_boxes_along_rows_have_no_angle(tmp_path: Path) -> None:
    ship_files(tmp_path)
    picture(tmp_path / "bare.tif")
    (tmp_path / "bare.geojson").write_text((tmp_path / "ships.geojson").read_text())
    with pytest.raises(RequestError, match=r"bare.geojson: its outlines are map coordinates .*no place on a map"):
        load_samples("boxes", tmp_path, annotations=["bare.geojson"], tile=48)
    picture(tmp_path / "ships.png")
    with pytest.raises(RequestError, match=r"several pictures have this name: ships\.png, ships\.tif"):
        load_samples("boxes", tmp_path, annotations=["ships.txt"], tile=48)
    (tmp_path / "bare.xml").write_text(voc(OBJECTS[:2], "bare.tif"))
    both = load_samples("boxes", tmp_path, annotations=["ships.csv", "bare.xml"], tile=48)
    assert both.boxes is not None and both.boxes[1].shape == (2, 6) and not both.boxes[1][:, 5].any()
    alone = load_samples("boxes", tmp_path, annotations=["bare.xml"], tile=48)
    assert alone.boxes is not None and alone.boxes[0].shape == (2, 5)


@pytest.mark.parametrize("name", ["ships.txt", "ships.geojson", "ships.gpkg"])
def test_damaged_outlines_are_read_or_refused_in_words(tmp_path: Path, name: str) -> None:
    ship_files(tmp_path)
    whole, rng = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        (tmp_path / name).write_bytes(
            bytes(content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.3 else content)
        )
        try:
            (one,) = read_box_file(tmp_path / name)
            one.on(FinerGrid(48, 64, "EPSG:32633", Transform(*PLACE[:6])))
        except RequestError as error:
            refused += name in str(error)
    assert refused > 5
