"""Several dates of one place, each a GeoTIFF on the same grid, read as one scene."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.grids import check_same_grid
from rsedge.data.scenes.raster_file import Array
from rsedge.data.scenes.units import Units


def one_date(spec: InputSpec) -> InputSpec:
    """The contract of one of the dates of a ``TCHW`` contract."""
    return spec.model_copy(update={"layout": "CHW", "frames": 1})


class DatesReader:
    """Scenes of all dates of a ``TCHW`` contract, in time's order, as one that :mod:`rsedge.runtimes.inference.scene` can map.

    Args:
        readers: one per date, each opened with :func:`one_date` of the contract.

    Raises:
        RequestError: another number of dates than the contract has frames, or dates on different grids.
    """

    first_pixel: tuple[int, int] = (0, 0)
    screen: Any = None

    def __init__(self, readers: Sequence[SceneReader], spec: InputSpec) -> None:
        if len(readers) != spec.frames:
            names = ", ".join(str(r.path) for r in readers)
            raise RequestError(f"the model takes {spec.frames} date(s), given {len(readers)} ({names}); see --after")
        first = readers[0]
        for other in readers[1:]:
            check_same_grid(other, other.path, first, "it")
        self.readers, self.spec = tuple(readers), spec
        self.path, self.height, self.width = first.path, first.height, first.width
        self.crs, self.transform, self.points = first.crs, first.transform, first.points
        self.blocks = dataclasses.replace(
            first.blocks, pixel_bytes=sum(reader.blocks.pixel_bytes for reader in readers)
        )

    @property
    def units(self) -> Units:
        return self.readers[0].units

    @property
    def gsd_m(self) -> float | None:
        return self.readers[0].gsd_m

    @property
    def unpacking_s(self) -> float:
        return sum(reader.unpacking_s for reader in self.readers)

    @property
    def warnings(self) -> list[str]:
        return [warning for reader in self.readers for warning in reader.warnings]

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """A window inside the scene: DN [dates * C, height, width], and where a pixel is missing at any date."""
        parts = [reader.read(row, col, height, width) for reader in self.readers]
        return np.concatenate([dn for dn, _ in parts]), np.logical_or.reduce([missing for _, missing in parts])
