"""Outlines of objects in map coordinates, and the boxes around them on the grid of an image, which says where it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import cornered
from rsedge.data.boxes.oriented import rectangle_around
from rsedge.data.errors import RequestError, missing_extra
from rsedge.data.scenes.grids import Grid
from rsedge.data.scenes.raster_file import NO_PLACE

Points = npt.NDArray[np.float64]
Box = tuple[float, ...]


@dataclass(frozen=True)
class Outlines:
    """Objects of one file.

    Attributes:
        rings: per object the points (p, 2) of its outline, x and y of the system; all of them numbers.
        labels: per object the name of its class.
        places: per object the file and where it stands in it, for errors.
        crs: the system: ``EPSG:n`` or WKT (:mod:`rsedge.data.scenes.crs_text`).
        scene: name of the image, where the file says it.
        empty: entries that have a class and no outline, which are not among the objects.
    """

    rings: tuple[Points, ...]
    labels: tuple[str, ...]
    places: tuple[str, ...]
    crs: str
    scene: str | None = None
    empty: int = 0


def box_around(where: str, points: Points) -> Box:
    """The smallest box around points (pixels), as :class:`~rsedge.data.boxes.files.LabelledImage` has turned ones.

    Raises:
        RequestError: fewer than three points, one that is no number, or all on one line.
    """
    if len(points) < 3:
        raise RequestError(f"{where}: an outline needs three points or more")
    if not np.isfinite(points).all():
        raise RequestError(
            f"{where}: its outline has points that are no numbers, or reaches to where the image's system holds no place; "
            "cut it to the image"
        )
    box = rectangle_around(points)
    if not (box[2] * box[3] >= 1e-6 and np.isfinite(box).all()):
        raise RequestError(f"{where}: its outline has no area")
    return tuple(cornered(box[None])[0].tolist())


def on_grid(found: Outlines, grid: Grid, where: str) -> dict[int, Box]:
    """The smallest boxes around outlines on an image's grid, by the number of the object: corners (pixels) and angle.

    Objects that do not reach into the image have none; those across its edge are whole.

    Args:
        where: the file of outlines, for errors.

    Raises:
        RequestError: the image does not say where it lies, the systems do not fit, or an outline has no area, or reaches from the
            image to where its system holds no place. MissingCapability: rasterio is not here, and the systems differ.
    """
    if grid.crs is None:
        raise RequestError(
            f"{where}: its outlines are map coordinates ({found.crs[:40]}), and the image {NO_PLACE}; "
            "give outlines in pixels (.csv with x1, y1 to x4, y4, or DOTA's .txt)"
        )
    if not found.rings:
        return {}
    ends = np.cumsum([len(ring) for ring in found.rings])[:-1]
    parts = np.split(_pixels(found, grid, where), ends)
    return {i: box_around(found.places[i], part) for i, part in enumerate(parts) if _reaches(part, grid)}


def _pixels(found: Outlines, grid: Grid, where: str) -> Points:
    """All points (n, 2) as columns and rows; not finite where the image's system holds no such place."""
    x, y = np.concatenate(found.rings).T
    if grid.crs != found.crs:
        try:
            from rsedge.data.scenes.raster import between, gdal_errors
        except ModuleNotFoundError as error:
            raise missing_extra("rasterio", None, f"{where}: bringing outlines into the image's system") from error
        with gdal_errors(f"{where}: {found.crs[:40]} cannot be brought into the image's system"):
            x, y = between(found.crs, grid.crs, x, y)
    return np.stack(grid.transform.to_pixel(x, y), 1)


def _reaches(points: Points, grid: Grid) -> bool:
    """Whether the box along rows and columns around an outline's points shares an area with the image."""
    there = points[np.isfinite(points).all(1)]
    if not len(there):
        return False
    low, high = there.min(0), there.max(0)
    return bool((high > 0).all() and low[0] < grid.width and low[1] < grid.height)
