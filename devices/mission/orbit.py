"""The budget of one orbit: scenes imaged, processed and sent, and the energy that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rsedge.data.errors import RequestError
from rsedge.devices.mission.description import OrbitMission
from rsedge.devices.mission.limits import Bottleneck, Figures, Load, bytes_per_pixel, finite, smallest, traffic
from rsedge.devices.mission.physics import eclipse_fraction, ground_speed_km_s, period_s
from rsedge.runtimes.inference.scene import tile_starts

DAY_S = 86_400.0


@dataclass(frozen=True)
class _Phase:
    """Sunlight or shadow: how long (s), the power there is (W); a computer that cannot even wait there is off."""

    seconds: float
    watts: float

    def on(self, load: Load) -> bool:
        return self.seconds > 0 and self.watts > 0 and self.watts >= load.standby_w

    def tiles(self, load: Load) -> float:
        """Tiles that time and power allow: standby for the whole phase plus the tiles' energy stays within the supply."""
        if not self.on(load) or math.isinf(load.paced_s):
            return 0.0
        by_time = self.seconds / load.paced_s
        spare = (self.watts - load.standby_w) * self.seconds
        return by_time if load.above_standby_j <= 0 else min(by_time, spare / load.above_standby_j)


def orbit_figures(mission: OrbitMission, load: Load, bundle_gsd_m: float | None) -> Figures:
    """Everything about one orbit, for one load per tile.

    Raises:
        RequestError: neither the mission nor the bundle states a GSD, or the scene is smaller than a tile.
    """
    scene = _Scene.of(mission, load, bundle_gsd_m)
    orbit, power, down = mission.orbit, mission.power, mission.downlink
    period, speed = period_s(orbit.altitude_km), ground_speed_km_s(orbit.altitude_km)
    share = eclipse_fraction(orbit.altitude_km, orbit.beta_deg) if orbit.eclipse_share is None else orbit.eclipse_share
    phases = (_Phase(period * (1 - share), power.sunlit_w), _Phase(period * share, power.eclipse_w))
    on_s = sum(p.seconds for p in phases if p.on(load))
    sent = bytes_per_pixel(mission.results, load.pixel_bytes)[1] * scene.pixels
    link = down.rate_mbit_s * 1e6 / 8 * down.efficiency * down.pass_minutes * 60 * down.passes_per_day * period / DAY_S
    limits: dict[Bottleneck, float] = {
        "imaging": mission.sensor.duty_cycle * period * speed / scene.length_km,
        "memory": math.inf if load.fits_memory else 0.0,
        "compute": on_s / (scene.tiles * load.seconds),
        "power": on_s / (scene.tiles * load.paced_s),
        "energy": sum(p.tiles(load) for p in phases) / scene.tiles,
        "downlink": link / sent,
    }
    name, result = smallest(limits)
    used_j = sum(p.seconds for p in phases if p.on(load)) * load.standby_w + (
        result * scene.tiles * load.above_standby_j if result else 0.0
    )
    scene_s = scene.tiles * load.paced_s
    return Figures(
        result=result,
        bottleneck=name,
        why=_WHY[name],
        limits={n: v for n, v in limits.items() if n != "memory" or v == 0},
        words=_WORDS,
        energy_wh=used_j / 3600,
        energy_available_wh=sum(p.seconds * p.watts for p in phases) / 3600,
        data=traffic(result * scene.pixels, mission.results, load.pixel_bytes),
        facts=finite(
            {
                "period": (period / 60, "min"),
                "ground speed": (speed, "km/s"),
                "eclipse": (share * period / 60, "min"),
                "time with power": (on_s / 60, "min"),
                "sampling distance": (scene.gsd_m, "m"),
                "scene length": (scene.length_km, "km"),
                "tiles per scene": (float(scene.tiles), "tiles"),
                "time to pass a scene": (scene.length_km / speed, "s"),
                "time to process a scene": (scene_s, "s"),
                "energy per scene": (scene.tiles * (load.idle_w * load.paced_s + load.dynamic_j) / 3600, "Wh"),
            }
        ),
        gsd_m=scene.gsd_m,
    )


@dataclass(frozen=True)
class _Scene:
    gsd_m: float
    length_km: float
    tiles: int
    pixels: float

    @classmethod
    def of(cls, mission: OrbitMission, load: Load, bundle_gsd_m: float | None) -> _Scene:
        gsd = mission.sensor.gsd_m or bundle_gsd_m
        if gsd is None:
            raise RequestError(
                "sensor.gsd_m: neither the mission nor the bundle's bands state a sampling distance; give it in the "
                "mission file or with --set sensor.gsd_m=10"
            )
        length = mission.sensor.scene_length_km or mission.sensor.swath_km
        across, along = (max(1, round(km * 1e3 / gsd)) for km in (mission.sensor.swath_km, length))
        if min(across, along) < load.tile:
            raise RequestError(
                f"sensor: a scene of {across} x {along} pixels at {gsd:g} m is smaller than a tile of {load.tile} pixels; "
                "raise swath_km or scene_length_km"
            )
        tiles = len(tile_starts(across, load.tile, load.overlap_px)) * len(
            tile_starts(along, load.tile, load.overlap_px)
        )
        return cls(gsd, length, tiles, float(across) * along)


_WORDS: dict[Bottleneck, str] = {
    "imaging": "scenes the instrument takes",
    "memory": "the process does not fit the device's memory",
    "compute": "scenes the computer gets through at full speed while it has power",
    "power": "the same, spaced so that mean power stays under the mode's cap and power.peak_w",
    "energy": "the same, within the power there is in sunlight and in shadow",
    "downlink": "scenes whose results the radio brings down",
}
_WHY: dict[Bottleneck, str] = {
    "imaging": "everything that is imaged is processed and sent; nothing on board holds it back",
    "memory": "the process does not fit the device's memory; a smaller tile or another device is needed",
    "compute": "inference is too slow for the time with power; a smaller model or a faster device or mode helps",
    "power": "inference draws more than may be drawn at once and must pause; a lower power mode or a higher limit helps",
    "energy": "the power supply gives out before the time does; a more frugal model or more power helps",
    "downlink": "the radio gives out first; discard more, send only maps, or book more passes",
}
