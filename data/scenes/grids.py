"""Grids of rasters, and the check that two of them are one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rsedge.data.errors import RequestError
from rsedge.data.scenes.raster_file import Transform, pixel_to_map

OFF_GRID = 0.05
"""Pixels by which corners of one grid may lie apart."""


class Grid(Protocol):
    """Rows and columns of pixels and where they lie; scene readers have one."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def crs(self) -> Any: ...
    @property
    def transform(self) -> Transform: ...


def check_same_grid(other: Grid, path: Path, scene: Grid, what: str) -> None:
    """Holds the grid of ``other`` (the file ``path``, of ``what``) against a scene's.

    Raises:
        RequestError: another size, CRS or place; says how to warp it.
    """
    if (other.height, other.width) != (scene.height, scene.width):
        raise RequestError(
            f"{path}: {other.height}x{other.width} pixels, the scene has {scene.height}x{scene.width}; "
            f"resample {what} to the scene's grid (e.g. rio warp --like SCENE)"
        )
    if other.crs is None and scene.crs is not None:
        raise RequestError(
            f"{path}: has no CRS, the scene has {scene.crs}; where {what} lie on the scene's grid, say so in the file "
            f"(e.g. rio edit-info --like SCENE --crs like --transform like {path})"
        )
    if scene.crs is None and other.crs is not None:
        raise RequestError(
            f"{path}: CRS {other.crs}, the scene has none; where the scene lies on the grid of {what}, say so in the scene (e.g. "
            f"rio edit-info --like {path} --crs like --transform like SCENE)"
        )
    if other.crs != scene.crs:
        raise RequestError(f"{path}: CRS {other.crs}, the scene has {scene.crs}; warp {what} to the scene's grid")
    if other.transform.e * scene.transform.e < 0:
        raise RequestError(
            f"{path}: its rows run the other way than the scene's (south up); warp {what} to the scene's grid "
            "(e.g. rio warp --like SCENE)"
        )
    pixel = max(abs(scene.transform.a), abs(scene.transform.b), abs(scene.transform.d), abs(scene.transform.e))
    corners = [(0, 0), (scene.width, 0), (0, scene.height)]
    apart = max(
        abs(a - b)
        for corner in corners
        for a, b in zip(pixel_to_map(other.transform, *corner), pixel_to_map(scene.transform, *corner), strict=True)
    )
    if apart > OFF_GRID * pixel:
        raise RequestError(
            f"{path}: its grid lies {apart / pixel:.2f} pixels off the scene's; warp {what} to the scene's grid"
        )


@dataclass(frozen=True)
class FinerGrid:
    """The grid that lies over another one with each pixel cut into ``finer`` x ``finer``."""

    height: int
    width: int
    crs: Any
    transform: Transform

    @classmethod
    def over(cls, grid: Grid, finer: int) -> FinerGrid:
        return cls(finer * grid.height, finer * grid.width, grid.crs, grid.transform.scaled(1 / finer))
