"""The budget of one orbit: scenes imaged, processed and sent, and the energy that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rsedge.data.errors import RequestError
from rsedge.devices.mission.description import OrbitMission, OrbitPowerSection
from rsedge.devices.mission.limits import Bottleneck, Figures, Load, bytes_per_pixel, finite, smallest, traffic
from rsedge.devices.mission.physics import eclipse_fraction, ground_speed_km_s, period_s
from rsedge.runtimes.inference.tiles import tile_starts

DAY_S = 86_400.0


@dataclass(frozen=True)
class _Phase:
    """Sunlight or shadow: how long (s), the power there is (W)."""

    seconds: float
    watts: float

    @property
    def joules(self) -> float:
        return self.seconds * self.watts

    def carries(self, load: Load) -> bool:
        """Whether the computer can at least wait there."""
        return self.seconds > 0 and self.watts > 0 and self.watts >= load.standby_w


@dataclass(frozen=True)
class _Energy:
    """What the power supply lets be done in one orbit: tiles in sunlight and in shadow, and where the computer is on.

    With a battery all energy comes from the array: what is drawn in shadow, more by the losses of charging, is missing in sunlight,
    and the depth of discharge bounds it. Sunlight is used first, since nothing is lost there.
    """

    sun: _Phase
    shadow: _Phase
    in_sun: float
    in_shadow: float
    sun_on: bool
    shadow_on: bool

    @classmethod
    def of(cls, sun: _Phase, shadow: _Phase, power: OrbitPowerSection, load: Load) -> _Energy:
        drawable, standby = shadow.joules, load.standby_w * shadow.seconds
        if power.battery_wh is not None:
            drawable = min(drawable, 3600 * power.battery_wh * power.depth_of_discharge)
        spare = sun.joules - load.standby_w * sun.seconds
        sun_on, shadow_on = sun.carries(load), shadow.carries(load) and drawable >= standby
        charged = power.battery_wh is not None
        if charged:
            shadow_on = shadow_on and sun_on and spare * power.charge_efficiency >= standby
            spare -= standby / power.charge_efficiency if shadow_on else 0.0
        in_sun = _tiles(sun.seconds, spare, load) if sun_on else 0.0
        left = drawable - standby
        if charged:
            used = in_sun * max(load.above_standby_j, 0.0) if in_sun else 0.0
            left = min(left, power.charge_efficiency * (spare - used))
        in_shadow = _tiles(shadow.seconds, left, load) if shadow_on else 0.0
        return cls(sun, shadow, in_sun, in_shadow, sun_on, shadow_on)

    @property
    def tiles(self) -> float:
        return self.in_sun + self.in_shadow

    @property
    def on_s(self) -> float:
        return self.sun.seconds * self.sun_on + self.shadow.seconds * self.shadow_on

    def drawn_j(self, load: Load, tiles: float) -> tuple[float, float]:
        """Energy (J) in sunlight and in shadow for so many tiles, of which as many as can be run in sunlight."""
        in_sun = min(tiles, self.in_sun)
        drawn = []
        for phase, on, run in ((self.sun, self.sun_on, in_sun), (self.shadow, self.shadow_on, tiles - in_sun)):
            above = run * load.above_standby_j if run else 0.0  # of a tile that may never run it is infinite
            drawn.append(phase.seconds * load.standby_w + above if on else 0.0)
        return drawn[0], drawn[1]


def _tiles(seconds: float, joules: float, load: Load) -> float:
    """Tiles that time, and energy above that of waiting, allow."""
    if math.isinf(load.paced_s):
        return 0.0
    by_time = seconds / load.paced_s
    return by_time if load.above_standby_j <= 0 else min(by_time, max(joules, 0.0) / load.above_standby_j)


def orbit_figures(mission: OrbitMission, load: Load, bundle_gsd_m: float | None) -> Figures:
    """Everything about one orbit, for one load per tile.

    Raises:
        RequestError: neither the mission nor the bundle states a GSD, or the scene is smaller than a tile.
    """
    scene = _Scene.of(mission, load, bundle_gsd_m)
    orbit, power = mission.orbit, mission.power
    period, speed = period_s(orbit.altitude_km), ground_speed_km_s(orbit.altitude_km)
    share = eclipse_fraction(orbit.altitude_km, orbit.beta_deg) if orbit.eclipse_share is None else orbit.eclipse_share
    sun, shadow = _Phase(period * (1 - share), power.sunlit_w), _Phase(period * share, power.eclipse_w)
    energy = _Energy.of(sun, shadow, power, load)
    results = _Results.of(mission, load, scene, period)
    limits: dict[Bottleneck, float] = {
        "imaging": mission.sensor.duty_cycle * period * speed / scene.length_km,
        "memory": math.inf if load.fits_memory else 0.0,
        "compute": energy.on_s / (scene.tiles * load.seconds),
        "power": energy.on_s / (scene.tiles * load.paced_s),
        "energy": energy.tiles / scene.tiles,
        "storage": results.storage / results.between_passes if results.storage else math.inf,
        "downlink": results.link / results.sent,
    }
    name, result = smallest(limits)
    made = min(limit for name, limit in limits.items() if name not in ("storage", "downlink"))
    drawn = energy.drawn_j(load, result * scene.tiles if result else 0.0)
    return Figures(
        result=result,
        bottleneck=name,
        why=_WHY[name],
        limits={n: v for n, v in limits.items() if math.isfinite(v) and (n != "memory" or v == 0)},
        words=_WORDS,
        energy_wh=sum(drawn) / 3600,
        energy_available_wh=(sun.joules + (0.0 if power.battery_wh else shadow.joules)) / 3600,
        data=traffic(result * scene.pixels, mission.results, load.pixel_bytes),
        facts=finite(
            {
                "period": (period / 60, "min"),
                "ground speed": (speed, "km/s"),
                "eclipse": (share * period / 60, "min"),
                "time with power": (energy.on_s / 60, "min"),
                "sampling distance": (scene.gsd_m, "m"),
                "scene length": (scene.length_km, "km"),
                "tiles per scene": (float(scene.tiles), "tiles"),
                "time to pass a scene": (scene.length_km / speed, "s"),
                "time to process a scene": (scene.tiles * load.paced_s, "s"),
                "energy per scene": (scene.tiles * (load.idle_w * load.paced_s + load.dynamic_j) / 3600, "Wh"),
                **_balance(power, sun, drawn),
                **results.backlog(made, period),
            }
        ),
        gsd_m=scene.gsd_m,
    )


def _balance(power: OrbitPowerSection, sun: _Phase, drawn: tuple[float, float]) -> dict[str, tuple[float, str]]:
    """What the battery gives in shadow and whether sunlight fills it again; nothing where there is none."""
    if power.battery_wh is None:
        return {}
    in_sun, in_shadow = drawn
    return {
        "drawn from the battery in shadow": (in_shadow / 3600, "Wh"),
        "depth of discharge": (in_shadow / 3600 / power.battery_wh, "of the battery"),
        "left in sunlight after charging": ((sun.joules - in_sun - in_shadow / power.charge_efficiency) / 3600, "Wh"),
    }


@dataclass(frozen=True)
class _Results:
    """What is sent of a scene (bytes), what the radio brings down in an orbit and what can wait (bytes), and how many scenes' worth
    of an orbit has to wait from one pass to the next (bytes per scene and orbit)."""

    sent: float
    link: float
    storage: float
    between_passes: float

    @classmethod
    def of(cls, mission: OrbitMission, load: Load, scene: _Scene, period: float) -> _Results:
        down, sent = mission.downlink, bytes_per_pixel(mission.results, load.pixel_bytes)[1] * scene.pixels
        a_pass = down.rate_mbit_s * 1e6 / 8 * down.efficiency * down.pass_minutes * 60
        orbits = DAY_S / period / down.passes_per_day if down.passes_per_day else math.inf
        return cls(
            sent,
            a_pass * down.passes_per_day * period / DAY_S,
            1e9 * (mission.storage.capacity_gb or 0.0),
            sent * orbits,
        )

    def backlog(self, scenes: float, period: float) -> dict[str, tuple[float, str]]:
        """What waits for the radio if so many scenes an orbit are worked off, with passes spread evenly over the day."""
        a_day = max(0.0, scenes * self.sent - self.link) * DAY_S / period
        found = {
            "waiting from one pass to the next": (scenes * self.between_passes / 1e9, "GB"),
            "never sent, if all that can be is worked off": (a_day / 1e9, "GB per day"),
        }
        if self.storage and a_day:
            found["storage is full by that after"] = (self.storage / a_day, "days")
        return found


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
    "energy": "the same, within the power there is in sunlight and in shadow, and what a battery may give",
    "storage": "scenes whose results fit the storage from one pass to the next",
    "downlink": "scenes whose results the radio brings down",
}
_WHY: dict[Bottleneck, str] = {
    "imaging": "everything that is imaged is processed and sent; nothing on board holds it back",
    "memory": "the process does not fit the device's memory; a smaller tile or another device is needed",
    "compute": "inference is too slow for the time with power; a smaller model or a faster device or mode helps",
    "power": "inference draws more than may be drawn at once and must pause; a lower power mode or a higher limit helps",
    "energy": "the power supply gives out before the time does; a more frugal model or more power helps",
    "storage": "results find no room until the next pass; discard more, send only maps, or take more storage",
    "downlink": "the radio gives out first; discard more, send only maps, or book more passes",
}
