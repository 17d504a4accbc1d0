"""Where a raster lies that has no transform: ground control points, and rational polynomials (RPC), on grids of other steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

_LINES, _SAMPLES = ("line_off", "line_scale"), ("samp_off", "samp_scale")


@dataclass(frozen=True)
class Points:
    """What a file says beside a transform: rasterio's ground control points with their CRS, and its RPC; () and None without."""

    gcps: tuple[Any, ...] = ()
    crs: Any = None
    rpcs: Any = None

    def __bool__(self) -> bool:
        return bool(self.gcps) or self.rpcs is not None

    def on_grid(self, factor: float) -> Points:
        """The same places on a grid with ``factor`` times as many rows and columns over the same ground.

        Rows and columns of ground control points count from the upper left corner of the first pixel, those of RPC from its
        centre.
        """
        if factor == 1 or not self:
            return self
        from rasterio.control import GroundControlPoint

        gcps = tuple(GroundControlPoint(g.row * factor, g.col * factor, g.x, g.y, g.z, g.id, g.info) for g in self.gcps)
        return replace(self, gcps=gcps, rpcs=None if self.rpcs is None else _scaled(self.rpcs, factor))

    def profile(self) -> dict[str, Any]:
        """As arguments of ``rasterio.open``."""
        found: dict[str, Any] = {} if self.rpcs is None else {"rpcs": self.rpcs}
        return found | ({"gcps": list(self.gcps), "crs": self.crs} if self.gcps else {})


def _scaled(rpcs: Any, factor: float) -> Any:
    known = rpcs.to_dict()
    for offset, scale in (_LINES, _SAMPLES):
        known[offset] = (known[offset] + 0.5) * factor - 0.5
        known[scale] = known[scale] * factor
    return type(rpcs)(**known)
