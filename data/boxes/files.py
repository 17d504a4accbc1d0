"""Files of boxes: Pascal VOC (.xml, one image each), COCO (.json) and a table (.csv, as DeepForest writes); of turned boxes a table
of four corners (.csv), DOTA's lines (.txt, one image each), GeoJSON and GeoPackage (.geojson, .gpkg, one image each).

Corners are read as they stand, in pixels from the upper left; four corners and outlines become the smallest box around them, turned
as that lies. XML is parsed without entities: a document type is refused.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import TRUTH
from rsedge.data.boxes.map_files import LABEL_FIELDS, read_geojson, read_geopackage
from rsedge.data.boxes.outlines import Outlines, box_around, on_grid
from rsedge.data.errors import RequestError
from rsedge.data.json_text import LABELS_BYTES, read_json
from rsedge.data.records import fields_text
from rsedge.data.scenes.grids import Grid

MOST_BYTES = 256 << 20
CSV_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
POINT_COLUMNS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")
_IMAGE_COLUMNS = ("image", "image_path")
_DOTA_HEADERS = ("imagesource", "gsd", "acquisition_dates")


@dataclass(frozen=True)
class LabelledImage:
    """One image's objects.

    Attributes:
        image: its file, as the annotation names it; without a suffix where the annotation does not say it.
        boxes: per object x low, y low, x high, y high (pixels), and of turned ones their angle
            (:mod:`rsedge.data.boxes.geometry`); none yet where ``outlines`` are to be brought onto the image (:meth:`on`).
        labels: per object the name of its class.
        size: width and height (pixels) that the file says, or None.
        where: file and place, for errors.
        outlines: of objects in map coordinates, or None.
    """

    image: str
    boxes: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...]
    size: tuple[int, int] | None
    where: str
    outlines: Outlines | None = None

    @property
    def oriented(self) -> bool:
        """Whether boxes are turned."""
        return self.outlines is not None or any(len(box) > len(CSV_COLUMNS) for box in self.boxes)

    def on(self, grid: Grid) -> LabelledImage:
        """With its boxes in pixels of an image that lies there; outlines that do not reach it have none. Raises as
        :func:`.outlines.on_grid`."""
        if self.outlines is None:
            return self
        boxes = on_grid(self.outlines, grid, self.where)
        return replace(self, boxes=tuple(boxes.values()), labels=tuple(self.labels[i] for i in boxes), outlines=None)

    def table(self, classes: Sequence[str], oriented: bool) -> npt.NDArray[np.float32]:
        """(M, 5) of corners and class number, or (M, 6) with the angle, 0 of boxes that are not turned."""
        rows = [
            (*box[:4], classes.index(label), *(box[4:] or (0.0,))[: int(oriented)])
            for box, label in zip(self.boxes, self.labels, strict=True)
        ]
        return np.array(rows, np.float32).reshape(-1, TRUTH + oriented)


def read_box_file(path: Path) -> list[LabelledImage]:
    """All images of one file, those without objects too.

    Raises:
        RequestError: no such file, unknown suffix, damaged, a field missing or no number, or a box without an area; names the file,
            the object and the field.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(
            f"{path}: boxes come as Pascal VOC (.xml), COCO (.json), a table (.csv), DOTA's lines (.txt), GeoJSON (.geojson) or a "
            "GeoPackage (.gpkg)"
        )
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    if path.stat().st_size > MOST_BYTES:
        raise RequestError(f"{path}: over {MOST_BYTES >> 20} MiB; split it")
    return _READERS[path.suffix.lower()](path)


class _PlainXml(ElementTree.TreeBuilder):
    """Elements only: a document type could define entities that grow without end or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise RequestError("a document type (<!DOCTYPE>) is not taken; remove it")


def _voc(path: Path) -> list[LabelledImage]:
    try:
        root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_PlainXml()))
    except ElementTree.ParseError as error:
        raise RequestError(f"{path}: not readable as XML ({error})") from error
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
    if root.tag != "annotation":
        raise RequestError(f"{path}: no Pascal VOC file: its first element is not <annotation>")
    boxes, labels = [], []
    for number, item in enumerate(root.findall("object"), 1):
        where = f"{path}: object {number}"
        boxes.append(_corners(where, {c: item.findtext(f"bndbox/{c}") for c in CSV_COLUMNS}))
        labels.append(_named(where, item.findtext("name")))
    size = [_whole(path, f"size/{edge}", root.findtext(f"size/{edge}")) for edge in ("width", "height")]
    width, height = size
    return [LabelledImage(_named(f"{path}", root.findtext("filename"), "filename"), tuple(boxes), tuple(labels),
                          None if width is None or height is None else (width, height), str(path))]  # fmt: skip


def _json(path: Path) -> list[LabelledImage]:
    """COCO, or GeoJSON by its type."""
    content = read_json(path, LABELS_BYTES)
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        return _geojson(path)
    return _coco(path, content)


def _coco(path: Path, content: Any) -> list[LabelledImage]:
    if not isinstance(content, dict) or not all(
        isinstance(content.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise RequestError(f"{path}: no COCO file: it needs the lists images, annotations and categories")
    names = {
        _key(path, "categories", c, "id"): str(_field(path, "categories", c, "name")) for c in content["categories"]
    }
    images = {_key(path, "images", i, "id"): i for i in content["images"]}
    found: dict[Any, list[tuple[tuple[float, ...], str]]] = {key: [] for key in images}
    for number, item in enumerate(content["annotations"]):
        where = f"{path}: annotations[{number}]"
        image, category = (_key(path, f"annotations[{number}]", item, k) for k in ("image_id", "category_id"))
        if image not in images or category not in names:
            raise RequestError(f"{where}: image_id {image} or category_id {category} is not in the file")
        if item.get("iscrowd"):
            continue
        box = _field(path, f"annotations[{number}]", item, "bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise RequestError(f"{where}: bbox must be [x, y, width, height], not {box!r}")
        x, y, width, height = (_number(where, "bbox", v) for v in box)
        found[image].append((_ordered(where, x, y, x + width, y + height), names[category]))
    return [
        LabelledImage(
            str(_field(path, "images", item, "file_name")), tuple(b for b, _ in found[key]), tuple(n for _, n in found[key]),
            _size(path, item), f"{path}: image {key}",
        )
        for key, item in images.items()
    ]  # fmt: skip


def _size(path: Path, item: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = (_whole(path, edge, item.get(edge)) for edge in ("width", "height"))
    return None if width is None or height is None else (width, height)


def _field(path: Path, table: str, item: Any, name: str) -> Any:
    if not isinstance(item, dict) or name not in item:
        raise RequestError(f"{path}: an entry of {table} has no {name}")
    return item[name]


def _key(path: Path, table: str, item: Any, name: str) -> int | str:
    found = _field(path, table, item, name)
    if not isinstance(found, int | str) or isinstance(found, bool):
        raise RequestError(f"{path}: an entry of {table} has the {name} {str(found)[:40]}; numbers or texts are needed")
    return found


def _table(path: Path) -> list[LabelledImage]:
    """A row per object; a row with an image alone is an image without objects."""
    found: dict[str, list[tuple[tuple[float, ...], str]]] = {}
    for line, row, corners in _rows(path):
        where = f"{path}: line {line}"
        image = _named(where, _first(row, _IMAGE_COLUMNS), "image")
        found.setdefault(image, [])
        if any(row.get(c) for c in corners):
            values = {c: row.get(c) for c in corners}
            box = _corners(where, values) if corners == CSV_COLUMNS else _four_points(where, list(values.values()))
            found[image].append((box, _named(where, _first(row, LABEL_FIELDS), "label")))
    return [
        LabelledImage(image, tuple(b for b, _ in objects), tuple(n for _, n in objects), None, f"{path}: {image}")
        for image, objects in found.items()
    ]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str], tuple[str, ...]]]:
    """Number of the line, its values by column, and the columns that its corners stand in."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            corners = _corner_columns(path, columns)
            for wanted in (_IMAGE_COLUMNS, *((c,) for c in corners), LABEL_FIELDS):
                if not set(wanted) & set(columns):
                    raise RequestError(f"{path}: no column {' or '.join(wanted)}{fields_text(wanted[0], columns)}")
            for row in reader:
                yield (
                    reader.line_num,
                    {k: (v or "").strip() for k, v in row.items() if k is not None and not isinstance(v, list)},
                    corners,
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path}: not readable as a table ({error})") from error


def _corner_columns(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of corners: of boxes along rows and columns, or of turned ones; never some of both.

    Raises:
        RequestError: it has columns of both forms, or one of them twice.
    """
    there = [c for c in columns if c in (*CSV_COLUMNS, *POINT_COLUMNS)]
    points = [c for c in there if c in POINT_COLUMNS]
    if 0 < len(points) < len(there):
        other = next(c for c in there if c in CSV_COLUMNS)
        raise RequestError(
            f"{path}: has corners in two forms (columns {other} and {points[0]}), which may differ; keep xmin, ymin, xmax, ymax "
            "of boxes along rows and columns, or x1, y1 to x4, y4 of turned ones"
        )
    if twice := sorted({c for c in there if there.count(c) > 1}):
        raise RequestError(f"{path}: has the column {twice[0]} twice; remove one")
    return POINT_COLUMNS if points else CSV_COLUMNS


def _dota(path: Path) -> list[LabelledImage]:
    """Eight numbers, a class and whether it is difficult in each line, behind lines of headers; difficult ones are objects too."""
    boxes, labels = [], []
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if not words or words[0].partition(":")[0].lower() in _DOTA_HEADERS:
            continue
        where = f"{path}: line {number}"
        if len(words) not in (len(POINT_COLUMNS) + 1, len(POINT_COLUMNS) + 2):
            raise RequestError(
                f"{where}: {len(words)} words; DOTA's lines have eight numbers (x1 y1 to x4 y4, pixels), a class and 0 or 1"
            )
        boxes.append(_four_points(where, words[: len(POINT_COLUMNS)]))
        labels.append(words[len(POINT_COLUMNS)])
    return [LabelledImage(path.stem, tuple(boxes), tuple(labels), None, str(path))]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not readable as text ({error})") from error


def _four_points(where: str, values: Sequence[Any]) -> tuple[float, ...]:
    numbers = [_number(where, name, value) for name, value in zip(POINT_COLUMNS, values, strict=True)]
    return box_around(where, np.array(numbers, np.float64).reshape(-1, 2))


def _geojson(path: Path) -> list[LabelledImage]:
    return [_of_outlines(path, read_geojson(path))]


def _geopackage(path: Path) -> list[LabelledImage]:
    return [_of_outlines(path, read_geopackage(path))]


def _of_outlines(path: Path, found: Outlines) -> LabelledImage:
    return LabelledImage(found.scene or path.stem, (), found.labels, None, str(path), found)


def _first(row: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((row[n] for n in names if row.get(n)), None)


def _named(where: str, text: str | None, field: str = "name") -> str:
    if text is None or not text.strip():
        raise RequestError(f"{where}: {field} is missing")
    return text.strip()


def _whole(path: Path, field: str, value: Any) -> int | None:
    if value is None:
        return None
    found = _number(str(path), field, value)
    if found < 1 or not found.is_integer():
        raise RequestError(f"{path}: {field}: {value} is no size in pixels")
    return int(found)


def _number(where: str, field: str, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise RequestError(f"{where}: {field}: {value!r} is no number")
    return found


def _corners(where: str, row: Mapping[str, str | None]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (_number(where, name, row[name]) for name in CSV_COLUMNS)
    return _ordered(where, x0, y0, x1, y1)


def _ordered(where: str, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    if x1 <= x0 or y1 <= y0:
        raise RequestError(f"{where}: the box {x0:g}, {y0:g} to {x1:g}, {y1:g} has no area; x and y must grow")
    return x0, y0, x1, y1


_READERS: Mapping[str, Callable[[Path], list[LabelledImage]]] = {
    ".xml": _voc, ".json": _json, ".csv": _table, ".txt": _dota, ".geojson": _geojson, ".gpkg": _geopackage,
}  # fmt: skip
SUFFIXES = tuple(_READERS)
