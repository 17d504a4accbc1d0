"""Several dates of one place, each a GeoTIFF on the same grid, read as one scene; and the check that two grids are one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.geotiff import Array, SceneReader, Units, pixel_to_map

OFF_GRID = 0.05
"""Pixels by which corners of one grid may lie apart."""


class Grid(Protocol):
    """Rows and columns of pixels and where they lie; rasterio's data sets and scene readers have one."""

    height: int
    width: int
    crs: Any
    transform: Any


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
    if other.crs != scene.crs:
        raise RequestError(f"{path}: CRS {other.crs}, the scene has {scene.crs}; warp {what} to the scene's grid")
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


def one_date(spec: InputSpec) -> InputSpec:
    """The contract of one of the dates of a ``TCHW`` contract."""
    return spec.model_copy(update={"layout": "CHW", "frames": 1})


class DatesReader:
    """Scenes of all dates of a ``TCHW`` contract, in time's order, as one that :mod:`rsedge.runtimes.scene` can map.

    Args:
        readers: one per date, each opened with :func:`one_date` of the contract.

    Raises:
        RequestError: another number of dates than the contract has frames, or dates on different grids.
    """

    def __init__(self, readers: Sequence[SceneReader], spec: InputSpec) -> None:
        if len(readers) != spec.frames:
            names = ", ".join(str(r.path) for r in readers)
            raise RequestError(f"the model takes {spec.frames} date(s), given {len(readers)} ({names}); see --after")
        first = readers[0]
        for other in readers[1:]:
            check_same_grid(other, other.path, first, "it")
        self.readers, self.spec = tuple(readers), spec
        self.path, self.height, self.width = first.path, first.height, first.width
        self.crs, self.transform = first.crs, first.transform

    @property
    def units(self) -> Units:
        return self.readers[0].units

    @property
    def gsd_m(self) -> float | None:
        return self.readers[0].gsd_m

    @property
    def warnings(self) -> list[str]:
        return [warning for reader in self.readers for warning in reader.warnings]

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """A window inside the scene: DN [dates * C, height, width], and where a pixel is missing at any date."""
        parts = [reader.read(row, col, height, width) for reader in self.readers]
        return np.concatenate([dn for dn, _ in parts]), np.logical_or.reduce([missing for _, missing in parts])
