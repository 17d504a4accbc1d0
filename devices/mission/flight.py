"""The budget of one flight: area covered, whether the computer keeps up, and what computing costs in endurance."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rsedge.devices.mission.description import CameraSection, FlightMission
from rsedge.devices.mission.limits import Bottleneck, Figures, Load, bytes_per_pixel, finite, smallest, traffic
from rsedge.devices.mission.physics import ground_sampling_m


@dataclass(frozen=True)
class _Ground:
    """What the camera sees: sampling (m), line spacing (m), and pixels per square kilometre of new ground."""

    gsd_m: float
    infer_gsd_m: float
    spacing_m: float
    repeats: float

    @classmethod
    def of(cls, camera: CameraSection, height_m: float) -> _Ground:
        gsd = ground_sampling_m(height_m, camera.focal_length_mm, camera.pixel_um)
        return cls(
            gsd_m=gsd,
            infer_gsd_m=camera.infer_gsd_m or gsd,
            spacing_m=camera.width_px * gsd * (1 - camera.side_overlap),
            repeats=1 / ((1 - camera.side_overlap) * (1 - camera.forward_overlap)),
        )

    def pixels_per_km2(self) -> float:
        """Pixels of all frames, overlaps included."""
        return 1e6 / self.gsd_m**2 * self.repeats

    def tiles_per_km2(self, camera: CameraSection, load: Load) -> float:
        """Tiles to infer, overlaps of frames included only where every frame is inferred."""
        once = 1e6 / (load.stride * self.infer_gsd_m) ** 2
        return once * self.repeats if camera.infer == "every-frame" else once


def flight_figures(mission: FlightMission, load: Load) -> Figures:
    """Everything about one flight, for one load per tile."""
    flight, camera = mission.flight, mission.camera
    ground = _Ground.of(camera, flight.height_m)
    tiles = ground.tiles_per_km2(camera, load)
    sent = bytes_per_pixel(mission.results, load.pixel_bytes)[1] * ground.pixels_per_km2()
    rate = mission.link.rate_mbit_s
    rates: dict[Bottleneck, float] = {
        "flight": flight.speed_m_s * ground.spacing_m / 1e6,
        "memory": math.inf if load.fits_memory else 0.0,
        "compute": 1 / (tiles * load.seconds),
        "power": 1 / (tiles * load.paced_s),
        "downlink": math.inf if rate is None else rate * 1e6 / 8 * mission.link.efficiency / sent,
    }
    name, km2_s = smallest(rates)
    usable_j = flight.battery_wh * flight.battery_usable * 3600
    computing_w = tiles * load.above_standby_j * km2_s if km2_s else 0.0
    survey = 1 - flight.turns
    drawn_w = load.standby_w + survey * computing_w
    seconds = usable_j / (flight.cruise_w + drawn_w)
    without = usable_j / flight.cruise_w
    result = km2_s * survey * seconds
    keeps_up = min(rates["compute"], rates["power"])
    return Figures(
        result=result,
        bottleneck=name,
        why=_WHY[name],
        limits={n: v * survey * seconds for n, v in rates.items() if math.isfinite(v)},
        words=_WORDS,
        energy_wh=drawn_w * seconds / 3600,
        energy_available_wh=usable_j / 3600,
        data=traffic(result * ground.pixels_per_km2(), mission.results, load.pixel_bytes),
        facts=finite(
            {
                "sampling distance": (ground.gsd_m, "m"),
                "line spacing": (ground.spacing_m, "m"),
                "tiles per km2": (tiles, "tiles"),
                "flight time": (seconds / 60, "min"),
                "flight time that computing costs": ((without - seconds) / 60, "min"),
                "speed that the computer keeps up with": (keeps_up * 1e6 / ground.spacing_m, "m/s"),
                "power of the computer, mean": (drawn_w, "W"),
            }
        ),
        gsd_m=ground.infer_gsd_m,
    )


_WORDS: dict[Bottleneck, str] = {
    "flight": "area the aircraft covers on its battery, the computer's share taken off",
    "memory": "the process does not fit the device's memory",
    "compute": "area the computer gets through at full speed in that time",
    "power": "the same, spaced so that mean power stays under the mode's cap and power.peak_w",
    "downlink": "area whose results the radio brings down in that time",
}
_WHY: dict[Bottleneck, str] = {
    "flight": "the computer keeps up; the battery ends the flight (energy), and flying takes most of it",
    "memory": "the process does not fit the device's memory; a smaller tile or another device is needed",
    "compute": "inference is slower than the aircraft; fly slower, raise infer_gsd_m, or take a smaller model",
    "power": "inference draws more than may be drawn at once and must pause; a lower power mode or a higher limit helps",
    "downlink": "the radio gives out first; discard more, send only maps, or keep data on the card",
}
