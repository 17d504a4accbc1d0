"""GeoParquet (version 1.1): a row per object or chip of a scene, with its outline. Needs the extra ``tables``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.files import atomic_path
from rsedge.data.scenes.kinds import files_read
from rsedge.data.scenes.raster_file import pixel_to_map
from rsedge.runtimes.inference.geopackage import polygon
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.tiles import Scene

SUFFIX = ".parquet"


def check(path: Path, crs: Any) -> None:
    """Before any work: whether :func:`write_polygons` can write there, of a system; raises as it does."""
    _pyarrow(path)
    projjson(crs, path)


def write_chip_table(
    path: Path, reader: Scene, grid: npt.NDArray[np.float32], names: Sequence[str], tile: int, about: Mapping[str, str]
) -> None:
    """Writes columns ``row``, ``column`` (chips), ``geometry`` (the chip's outline in the scene's CRS, or in pixels where it has
    none) and ``vector``, a list of float32 in the order of ``names``; chips without a vector have no row.

    Args:
        grid: vectors (K, rows, columns), NaN where a chip is nodata. about: metadata of the file.

    Raises:
        RequestError: it would overwrite the scene, or cannot be written there. MissingCapability: the extra is not installed.
    """
    check_outputs([path], files_read(reader.path))
    rows, columns = np.nonzero(np.isfinite(grid[0]))
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    pixels = (np.stack([columns, rows], 1)[:, None] + corners).astype(np.float64) * tile
    x, y = (
        (pixels[..., 0], pixels[..., 1])
        if reader.crs is None
        else pixel_to_map(reader.transform, pixels[..., 0], pixels[..., 1])
    )
    said = {"row": rows.astype(np.int32), "column": columns.astype(np.int32), "vector": grid[:, rows, columns].T}
    metadata = {"names": json.dumps(list(names)), **about}
    write_polygons(path, np.stack([x, y], -1), said, reader.crs, metadata)


def write_polygons(
    path: Path, rings: npt.NDArray[np.float64], columns: Mapping[str, Any], crs: Any, about: Mapping[str, str]
) -> None:
    """Writes a row per polygon; the file appears whole.

    Args:
        rings: closed outer rings (n, points, 2) in the coordinate reference system.
        columns: their attributes by name: lists, arrays (n,), or (n, K) float32 for a list of K in each row.
        crs: as :class:`rsedge.data.scenes.raster_file.RasterFile` has it.
        about: metadata of the file.

    Raises:
        RequestError: nobody knows the system here. MissingCapability: the extra is not installed.
    """
    pa, pq = _pyarrow(path)

    def column(values: Any) -> Any:
        if getattr(values, "ndim", 1) == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])

    geometry = pa.array([polygon(ring) for ring in rings], pa.binary())
    table = pa.table({**{name: column(values) for name, values in columns.items()}, "geometry": geometry})
    described: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": projjson(crs, path)}
    if len(rings):
        described["bbox"] = [*rings.min((0, 1)).tolist(), *rings.max((0, 1)).tolist()]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": described}}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo), **about}), temporary)


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow", "tables", f"{path}: writing Parquet") from error
    return pyarrow, pyarrow.parquet


def projjson(crs: Any, path: Path) -> Any:
    """The system as PROJJSON, None where there is none.

    Raises:
        RequestError: GDAL cannot say it so. MissingCapability: it needs rasterio, which is not here.
    """
    if crs is None:
        return None
    try:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
    except ModuleNotFoundError as error:
        raise missing_extra("rasterio", None, f"{path}: the definition of {str(crs)[:60]}") from error

    try:
        return CRS.from_user_input(crs).to_dict(projjson=True)
    except CRSError as error:
        raise RequestError(
            f"{path}: the coordinate reference system cannot be written as PROJJSON ({error})"
        ) from error
