"""What may be asked of a bundle beside the scene itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.data.scenes.kinds import files_read

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.head import Head
    from rsedge.runtimes.inference.screening import Screening


@dataclass(frozen=True)
class Options:
    """How a scene is to be read, and what is asked of the bundle; each is left as the file or the bundle has it by default.

    Attributes:
        after: later dates, on the grid of the first.
        bands: names of all the scene's bands in their order.
        overlap: of neighbouring tiles (pixels).
        probabilities: a GeoTIFF to write class probabilities into.
        score: certainty that an object needs.
        prompt: the question about a picture.
        prompts: a file of points and boxes whose masks are wanted.
        heads: what an encoder's vectors also go through.
        filter: a smaller bundle that says which tiles need not be seen.
        cog: rasters as cloud-optimised GeoTIFFs.
        align_tiles: tiles begin where the map's own grid says, not at the scene's edge.
        probability_type: of :data:`rsedge.runtimes.inference.style.PROBABILITY_TYPES`.
    """

    after: tuple[Path, ...] = ()
    bands: tuple[str, ...] | None = None
    sensor: str | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    nan_nodata: bool = False
    any_gsd: bool = False
    overlap: int | None = None
    probabilities: Path | None = None
    score: float | None = None
    prompt: str | None = None
    prompts: Path | None = None
    heads: tuple[Head, ...] = ()
    filter: Screening | None = None
    cog: bool = False
    probability_type: str = "float32"
    align_tiles: bool = False

    @property
    def given(self) -> list[str]:
        """Names of what is not left at its default."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]

    @property
    def files(self) -> list[Path]:
        """What is read beside the scene itself.

        Raises:
            RequestError: a later date's files cannot be told.
        """
        dates = [file for date in self.after for file in files_read(date)]
        return dates if self.prompts is None else [*dates, self.prompts]

    @property
    def reading(self) -> dict[str, Any]:
        names = ("sensor", "scale", "offset", "nodata", "nan_nodata", "any_gsd")
        return {name: getattr(self, name) for name in names}
