"""GeoTIFFs that are written from top to bottom, appear whole under their names, and are read back before that."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import atomic_path
from rsedge.data.scenes.points import Points
from rsedge.data.scenes.raster import CLASSES_TAG, GDAL_ERRORS, bounded_cache, check_known, open_raster
from rsedge.runtimes.cores import cpu_count
from rsedge.runtimes.inference.raster_parts import CLASS_BAND, Layer, RowWriter, count_classes, palette
from rsedge.runtimes.inference.statistics import Statistics, of_counts
from rsedge.runtimes.inference.style import LEVELS, Style
from rsedge.runtimes.inference.tiles import Grid
from rsedge.runtimes.session import Array

_BLOCK = 256


@contextlib.contextmanager
def sink(path: Path, reader: Grid, layer: Layer) -> Iterator[RowWriter]:
    """An open GeoTIFF; it lies where the scene does, by transform, ground control points or RPC."""
    count, height, width = layer.shape(reader)
    points = getattr(reader, "points", Points()).on_grid(1 / layer.scale)
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": count,
        "dtype": layer.dtype,
        "crs": reader.crs,
        "transform": None if reader.transform is None else Affine(*reader.transform.scaled(layer.scale)),
        "nodata": layer.nodata,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "deflate",
        "predictor": 1 if layer.dtype == "uint8" else 3,
        "bigtiff": "if_safer",
        **points.profile(),
    }
    # As an absolute name, nothing in it is a prefix that means something to GDAL.
    with rasterio.open(path.absolute(), "w", **profile) as file:
        if layer.is_map:
            file.write_colormap(1, palette(layer.classes, layer.style.colours))
        for index, name in enumerate(layer.bands, start=1):
            file.set_band_description(index, name)
        if layer.dtype == "uint8" and not layer.is_map:
            file.scales, file.offsets = (1 / LEVELS,) * count, (0.0,) * count
        names = {CLASSES_TAG: json.dumps(list(layer.classes))}
        file.update_tags(**names, **{f"class_{i}": c for i, c in enumerate(layer.classes)}, **layer.style.tags)

        def put(rows: Array, row: int, col: int) -> None:
            file.write(rows, window=Window(col, row, rows.shape[2], rows.shape[1]))

        writer = RowWriter(put, None if layer.is_map else Statistics(count))
        yield writer
        writer.finish()
        found = of_counts(layer.counts) if layer.is_map and layer.counts is not None else writer.statistics
        if found is not None:
            for index in range(1, count + 1):
                file.update_tags(index, **found.tags(index - 1))


def check_grid(reader: Grid) -> None:
    """A GeoTIFF says where any scene lies, but for systems that GDAL does not know.

    Raises:
        RequestError: the scene's is one.
    """
    if isinstance(reader.crs, str):
        check_known(reader.crs, reader.path)


def finish(temporary: Path, style: Style) -> None:
    """Writes a finished file anew in the order of a cloud-optimised GeoTIFF, with overviews, where the style asks for it.

    Overviews of a class map hold the class that most pixels have, those of other bands their mean. GDAL works block by block, so
    memory does not grow with the file; for the time of it another copy lies on the disk.
    """
    if not style.cog:
        return
    made = temporary.with_name(f"cog.{temporary.name}")
    with open_raster(temporary) as file:
        is_map, is_bytes = file.descriptions == (CLASS_BAND,), file.dtypes[0] == "uint8"
    with bounded_cache(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
        rasterio.shutil.copy(
            temporary.absolute(), made.absolute(), driver="COG", compress="deflate", blocksize=512, num_threads=cpu_count(),
            predictor="NO" if is_bytes else "YES", bigtiff="if_safer", overview_resampling="mode" if is_map else "average",
        )  # fmt: skip
    made.replace(temporary)


@contextlib.contextmanager
def atomic_raster(target: Path) -> Iterator[Path]:
    """:func:`atomic_path`, with GDAL's complaints about the target turned into ours."""
    try:
        with atomic_path(target) as temporary:
            yield temporary
    except GDAL_ERRORS as error:
        raise _not_whole(target, error) from error


def _not_whole(target: Path, error: object) -> MissingCapability:
    """GDAL does not tell why a file could not be written; the limits of this process and of the disk do."""
    most, free = resource.getrlimit(resource.RLIMIT_FSIZE)[0], shutil.disk_usage(target.parent).free
    limit = "" if most == resource.RLIM_INFINITY else f", and a file may have {most / 1024:,.1f} KiB here (ulimit -f)"
    return MissingCapability(
        f"{target}: could not be written whole: its disk has {free / 1024:,.0f} KiB free{limit}; free some, or choose another "
        f"place, and run it again ({error})"
    )


def read_back(temporary: Path, target: Path, wanted: tuple[npt.NDArray[np.int64], int] | None = None) -> None:
    """GDAL closes a file without a word where a full disk, or a limit on files, took none of its last bytes.

    Args:
        wanted: what :func:`count_classes` made of so many classes, in a file of one band.

    Raises:
        MissingCapability: it is not whole. IntegrityError: it holds other values.
    """
    found = np.zeros(256, dtype=np.int64)
    try:
        with open_raster(temporary) as file:
            for row in range(0, file.height, _BLOCK):
                window = Window(0, row, file.width, min(_BLOCK, file.height - row))
                values = file.read(list(range(1, file.count + 1)), window)
                if wanted is not None:
                    count_classes(values, wanted[1], found)
    except RequestError as error:
        raise _not_whole(target, "it cannot be read back") from error
    if wanted is not None and not np.array_equal(found, wanted[0]):
        raise IntegrityError(f"{target}: reads back differently from what was written; check the disk")
