"""How rasters are written beside their values: where they come from, in which form, and how probabilities are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle

PROBABILITY_TYPES = ("float32", "uint8")
LEVELS = 254
"""Of probabilities as bytes: a byte is a 254th, 255 is nodata."""


@dataclass(frozen=True)
class Style:
    """Attributes:
    tags: of the file, where it comes from.
    cog: as a cloud-optimised GeoTIFF, with overviews.
    probabilities: type in which they are stored.
    colours: of a class map's classes, '#rrggbb' each; those that their names suggest where there are none.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    cog: bool = False
    probabilities: str = "float32"
    colours: Sequence[str] = ()


PLAIN = Style()


def provenance_tags(bundle: Bundle, version: str) -> dict[str, str]:
    """Which bundle and rsedge made a file, when, and what became of the bundle's gates."""
    manifest = bundle.manifest
    verdict = manifest.verdict
    return {
        "TIFFTAG_SOFTWARE": f"rsedge {version}",
        "TIFFTAG_DATETIME": datetime.now(timezone.utc).strftime("%Y:%m:%d %H:%M:%S"),
        "rsedge_bundle": manifest.name,
        "rsedge_target": manifest.target.name,
        "rsedge_manifest_sha256": bundle.manifest_sha256,
        "rsedge_signature": bundle.signature.trust,
        "rsedge_verdict": "no gates" if verdict is None or not verdict.gates else str(verdict.outcome),
    }
