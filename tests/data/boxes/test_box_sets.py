"""Files of boxes in three layouts give the same samples; what is wrong with one is said with file, place and fix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.boxes.files import read_box_file
from rsedge.data.errors import RequestError
from rsedge.data.sets.sample_sources import load_samples

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
    ("x.txt", "", "boxes come as Pascal VOC"),
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
