"""What lies beside an output in a folder: names and colours of classes, as GDAL and QGIS know them, and a STAC item."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rsedge.data.colours import class_colours
from rsedge.data.files import write_bytes, write_json
from rsedge.data.scenes.whereabouts import taken_at

STAC_SUFFIX, TABLE_SUFFIX = ".stac.json", ".aux.xml"
_MEDIA = {
    ".tif": "image/tiff; application=geotiff",
    ".img": "application/octet-stream", ".geojson": "application/geo+json", ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet", ".csv": "text/csv",
}  # fmt: skip
_RASTERS = (".tif", ".img")
_EXTENSIONS = ("projection/v2.0.0", "processing/v1.2.0", "classification/v2.0.0", "file/v2.1.0")
# Of GDAL's raster attribute tables: name, type (0 integer, 2 text) and usage of each column.
_COLUMNS = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))


@dataclass(frozen=True)
class Asset:
    """A file that was written of a scene: what it is, where it lies, and the classes of a map in the order of their numbers."""

    key: str
    path: Path
    classes: tuple[str, ...] = ()


def write_beside(
    outputs: Sequence[Asset], name: str, source: Path, record: Mapping[str, Any], about: Mapping[str, Any]
) -> list[Path]:
    """Writes what lies beside a scene's outputs, where they lie on the earth.

    Args:
        outputs: the first is what the scene is asked for.
        record: what :func:`rsedge.runtimes.inference.works.base.provenance` says, with ``height`` and ``width``.
        about: ``version``, ``tags`` of provenance.

    Raises:
        RequestError, MissingCapability: as :func:`rsedge.data.files.atomic_path`.
    """
    made = []
    for one in outputs:
        if one.classes and one.path.suffix == ".tif":
            made.append(one.path.with_name(f"{one.path.name}{TABLE_SUFFIX}"))
            write_bytes(made[-1], attribute_table(one.classes).encode())
    first = outputs[0].path
    if first.suffix in _MEDIA and "footprint" in record:
        made.append(first.with_name(f"{Path(name).name}{STAC_SUFFIX}"))
        write_json(made[-1], stac_item(outputs, name, source, record, about))
    return made


def attribute_table(classes: Sequence[str]) -> str:
    """Names and colours of class numbers as GDAL keeps them beside a raster (``.aux.xml``)."""
    columns = "".join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(_COLUMNS)
    )
    rows = "".join(
        f'<Row index="{i}"><F>{i}</F><F>{escape(name)}</F>{"".join(f"<F>{int(c[k : k + 2], 16)}</F>" for k in (1, 3, 5))}</Row>'
        for i, (name, c) in enumerate(zip(classes, class_colours(classes), strict=True))
    )
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes)
    return (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames><GDALRasterAttributeTable '
        f'tableType="thematic">{columns}{rows}</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>\n'
    )


def stac_item(
    outputs: Sequence[Asset], name: str, source: Path, record: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """A STAC item (1.1.0) of outputs; as :func:`write_beside`.

    Its time is the scene's where the scene is a STAC item, else that of making it, which ``rsedge:datetime_of`` says.
    """
    ring, folder = record.get("footprint"), outputs[0].path.parent
    lons, lats = zip(*ring, strict=True) if ring else ((), ())
    taken, created = taken_at(source), datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    properties: dict[str, Any] = {
        "datetime": taken or created,
        "created": created,
        "rsedge:datetime_of": "scene" if taken else "processing",
        "processing:software": {"rsedge": about["version"]},
        **{
            key.replace("rsedge_", "rsedge:", 1): value
            for key, value in about["tags"].items()
            if key.startswith("rsedge_")
        },
    }
    if record.get("crs") and outputs[0].path.suffix in _RASTERS:
        a, b, c, d, e, f = record["transform"]
        properties |= {"proj:code": record["crs"]} if ":" in record["crs"] and len(record["crs"]) < 20 else {}
        properties |= {"proj:shape": [record["height"], record["width"]], "proj:transform": [a, b, c, d, e, f, 0, 0, 1]}
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{one}/schema.json" for one in _EXTENSIONS],
        "id": name.replace("/", "_"),
        "geometry": {"type": "Polygon", "coordinates": [ring]} if ring else None,
        "properties": properties,
        "links": [{"rel": "derived_from", "href": _from(source, folder)}],
        "assets": {},
    }
    if ring:
        item["bbox"] = [min(lons), min(lats), max(lons), max(lats)]
    for one in outputs:
        item["assets"][one.key] = _asset(one.path, folder, one.classes)
    return item


def _asset(path: Path, folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "href": _from(path, folder), "type": _MEDIA.get(path.suffix, "application/octet-stream"), "roles": ["data"],
        "file:size": path.stat().st_size,
    }  # fmt: skip
    if classes and path.suffix in _RASTERS:
        found["nodata"] = 255
        found["classification:classes"] = [
            {
                "value": i,
                "name": re.sub(r"[^0-9A-Za-z_-]", "-", name),
                "title": name,
                "color_hint": colour.removeprefix("#"),
            }
            for i, (name, colour) in enumerate(zip(classes, class_colours(classes), strict=True))
        ]
    return found


def _from(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
