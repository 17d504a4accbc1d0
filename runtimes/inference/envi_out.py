"""Rasters as ENVI files, band after band with a text header beside them (``.hdr``): for boards without GDAL."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import atomic_path, check_place, write_bytes
from rsedge.data.scenes.envi import HEADER, EnviRaster, envi_files, write_header
from rsedge.data.scenes.envi_place import place_fields
from rsedge.data.scenes.points import Points
from rsedge.data.scenes.raster_file import Window
from rsedge.runtimes.inference.raster_parts import Layer, RowWriter, count_classes, palette
from rsedge.runtimes.inference.style import LEVELS, Style
from rsedge.runtimes.inference.tiles import Scene
from rsedge.runtimes.session import Array

_ROWS = 256


@contextlib.contextmanager
def sink(path: Path, reader: Scene, layer: Layer) -> Iterator[RowWriter]:
    """As :func:`rsedge.runtimes.inference.raster_out.sink`; statistics are not kept.

    Raises:
        RequestError: as :func:`check_grid`.
    """
    placed = _placed(reader, layer.scale)
    shape, bands, classes, style = layer.shape(reader), list(layer.bands), layer.classes, layer.style
    with path.open("r+b") as file:

        def put(rows: Array, row: int, col: int) -> None:
            for band, values in enumerate(rows):
                plain = np.ascontiguousarray(values, layer.dtype)
                whole = plain.shape[1] == shape[2]
                for first in (0,) if whole else range(len(plain)):
                    place = ((band * shape[1] + row + first) * shape[2] + col) * plain.itemsize
                    _write(file.fileno(), (plain if whole else plain[first]).tobytes(), place)

        writer = RowWriter(put)
        yield writer
        writer.finish()
    more = {"description": "{" + " ".join(f"{k}: {v};" for k, v in style.tags.items()) + "}"} if style.tags else {}
    if layer.is_map:
        colours = [part for number in range(len(classes)) for part in palette(classes, style.colours)[number][:3]]
        more |= {
            "file type": "ENVI Classification", "classes": str(len(classes)),
            "class names": "{" + ", ".join(json.dumps(name)[1:-1].replace(",", " ") for name in classes) + "}",
            "class lookup": "{" + ", ".join(map(str, colours)) + "}",
        }  # fmt: skip
    elif layer.dtype == "uint8":
        more["data gain values"] = "{" + ", ".join([repr(1 / LEVELS)] * len(bands)) + "}"
    header = write_header(path, shape, layer.dtype, bands, layer.nodata, {**placed, **more})
    _header(path).write_bytes(header)


def check_grid(reader: Scene) -> None:
    """
    Raises:
        RequestError: a header cannot say where the scene lies.
    """
    _placed(reader, 1)


def _placed(reader: Scene, scale: float) -> dict[str, str]:
    if getattr(reader, "points", Points()):
        raise RequestError(
            f"{reader.path}: is placed by ground control points or RPC, which an ENVI header does not hold; write a GeoTIFF (.tif)"
        )
    transform = reader.transform
    return place_fields(None if transform is None else transform.scaled(scale), reader.crs, reader.path)


def _write(handle: int, content: bytes, place: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(handle, view, place)
        view, place = view[done:], place + done


def _header(data: Path) -> Path:
    return data.with_suffix(HEADER)


def _check_header(target: Path) -> None:
    """
    Raises:
        RequestError: it cannot be written there, or is that of other data.
    """
    header = _header(target)
    check_place(header)
    if target.exists() or not header.exists():
        return
    try:
        data = envi_files(header)[1]
    except RequestError:  # of data that are gone
        return
    raise RequestError(
        f"{header}: is the header of {data}, which would be lost; choose another name than {target.name}"
    )


@contextlib.contextmanager
def atomic_raster(target: Path) -> Iterator[Path]:
    """As :func:`rsedge.runtimes.inference.raster_out.atomic_raster`. An older header goes before the data change: what a kill
    leaves between has none, and is not taken for a whole file."""
    _check_header(target)
    with atomic_path(target) as temporary:
        yield temporary
        header = _header(temporary).read_bytes()
        _header(target).unlink(missing_ok=True)
    write_bytes(_header(target), header)


def finish(temporary: Path, style: Style) -> None:
    """Raises:
    RequestError: a cloud-optimised GeoTIFF is asked for.
    """
    if style.cog:
        raise RequestError(f"{temporary.name}: --cog is for GeoTIFFs; call it {temporary.with_suffix('.tif').name}")


def read_back(temporary: Path, target: Path, wanted: tuple[npt.NDArray[np.int64], int] | None = None) -> None:
    """As :func:`rsedge.runtimes.inference.raster_out.read_back`."""
    found = np.zeros(256, dtype=np.int64)
    try:
        with EnviRaster(temporary) as file:
            for row in range(0, file.height, _ROWS):
                window = Window(0, row, file.width, min(_ROWS, file.height - row))
                values = file.read(list(range(1, file.count + 1)), window)
                if wanted is not None:
                    count_classes(values, wanted[1], found)
    except RequestError as error:
        raise MissingCapability(
            f"{target}: could not be written whole; free space, and run it again ({error})"
        ) from error
    if wanted is not None and not np.array_equal(found, wanted[0]):
        raise IntegrityError(f"{target}: reads back differently from what was written; check the disk")
