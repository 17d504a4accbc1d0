"""What may be asked of a bundle beside the scene itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


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

    @property
    def given(self) -> list[str]:
        """Names of what is not left at its default."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]

    @property
    def reading(self) -> dict[str, Any]:
        names = ("sensor", "scale", "offset", "nodata", "nan_nodata", "any_gsd")
        return {name: getattr(self, name) for name in names}
