"""What orbit and flight budgets share: the load of one tile, tiles per area, bytes, and the smallest of the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rsedge.devices.mission.description import ResultsSection
from rsedge.devices.predict.energy import paced_ms
from rsedge.runtimes.inference.tiles import default_overlap

Bottleneck = Literal["imaging", "flight", "memory", "compute", "power", "energy", "storage", "downlink"]
TIE = 1e-9


@dataclass(frozen=True)
class Load:
    """One tile on the device, overhead included: time (s), energy above idle (J), and the board's power levels (W)."""

    tile: int
    overlap: int | None
    pixel_bytes: int
    seconds: float
    dynamic_j: float
    idle_w: float
    standby_w: float
    limit_w: float | None
    fits_memory: bool = True

    @property
    def stride(self) -> int:
        """Pixels from one tile to the next."""
        return self.tile - self.overlap_px

    @property
    def overlap_px(self) -> int:
        """Overlap of neighbouring tiles, by default as in scene inference."""
        return default_overlap(self.tile) if self.overlap is None else min(self.overlap, self.tile // 2)

    @property
    def paced_s(self) -> float:
        """Time per tile when inferences are spaced so that mean power stays under the limit (s)."""
        return paced_ms(self.seconds, self.dynamic_j, self.idle_w, self.limit_w)

    @property
    def above_standby_j(self) -> float:
        """Energy of one tile above what the waiting computer draws in the same time (J)."""
        return self.dynamic_j + (self.idle_w - self.standby_w) * self.paced_s


@dataclass(frozen=True)
class Figures:
    """The budget at one corner of the intervals; limits are in the unit of the result."""

    result: float
    bottleneck: Bottleneck
    why: str
    limits: dict[Bottleneck, float]
    words: dict[Bottleneck, str]
    energy_wh: float
    energy_available_wh: float
    data: dict[str, float]
    facts: dict[str, tuple[float, str]]
    gsd_m: float


def finite(facts: dict[str, tuple[float, str]]) -> dict[str, tuple[float, str]]:
    """The facts that have a value: a computer that may never run has no time per scene."""
    return {name: (value, unit) for name, (value, unit) in facts.items() if math.isfinite(value)}


def smallest(limits: Mapping[Bottleneck, float]) -> tuple[Bottleneck, float]:
    """The first limit that nothing undercuts."""
    least = min(limits.values())
    return next((n, v) for n, v in limits.items() if v <= least * (1 + TIE))


def bytes_per_pixel(results: ResultsSection, pixel_bytes: int) -> tuple[float, float]:
    """Bytes to send per pixel, without the model (all raw data) and with it (what is kept, and the map)."""
    plain = pixel_bytes / results.compression
    kept = plain * (1 - results.discard_share) if results.send == "kept-and-map" else 0.0
    return plain, kept + results.map_bits_per_pixel / 8


def traffic(pixels: float, results: ResultsSection, pixel_bytes: int) -> dict[str, float]:
    """Bytes for ``pixels``: raw, sent without the model, sent with it, and saved (negative where the map costs more)."""
    plain, sent = bytes_per_pixel(results, pixel_bytes)
    return {
        "raw": pixels * pixel_bytes,
        "sent without the model": pixels * plain,
        "sent with the model": pixels * sent,
        "saved": pixels * (plain - sent),
    }
