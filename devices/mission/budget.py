"""The budget of a mission: how many scenes per orbit or square kilometres per flight, and what holds it back.

Every limit is worked out on its own; the smallest is the result and names the bottleneck. A predicted latency or energy
makes the result predicted, and the whole is then worked out three times, at the low, middle and high ends together.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rsedge.data.record import Record
from rsedge.devices.mission.description import Mission, MissionInput, OrbitMission, with_value
from rsedge.devices.mission.flight import flight_figures
from rsedge.devices.mission.limits import Bottleneck, Figures, Load
from rsedge.devices.mission.load import Figure, TileCost, Workload
from rsedge.devices.mission.orbit import orbit_figures

LEAST_SWING = 0.01
"""Of the result; an assumption that moves it by less is not listed."""


class Amount(Record):
    """A result with its interval; low, mid and high are equal where nothing that went in was predicted."""

    low: float
    mid: float
    high: float
    unit: str

    @property
    def is_exact(self) -> bool:
        """Whether it has no interval, by its numbers, however they are rounded where they are shown."""
        return self.low == self.mid == self.high


class LimitRecord(Record):
    """How far one part of the mission would carry, in the unit of the result."""

    name: Bottleneck
    amount: Amount
    what: str


class Assumption(Record):
    """An input that nobody gave, and what the result would be at either end of what is usual."""

    name: str
    value: float
    low: float
    high: float
    result: Amount = Field(description="at the end that gives less, as it is, and at the end that gives more")


class Budget(Record):
    """A mission budget. ``provenance`` is predicted where latency or energy was, else derived."""

    mission: str
    kind: Literal["orbit", "flight"]
    target: str
    device: str
    power_mode: str | None
    provenance: Literal["predicted", "derived"]
    result: Amount = Field(description="scenes per orbit, or km2 per flight")
    bottleneck: Bottleneck
    why: str
    limits: list[LimitRecord]
    energy_wh: Amount = Field(description="drawn by the computer per orbit or flight")
    energy_available_wh: float
    data: dict[str, Amount] = Field(
        description="bytes per orbit or flight: raw, sent without and with the model, saved"
    )
    facts: dict[str, Amount] = Field(description="what the result was worked out from, for people to check")
    figures: dict[str, Figure] = Field(description="latency, idle power, dynamic energy and memory with provenance")
    inputs: list[MissionInput]
    assumptions: list[Assumption] = Field(
        default_factory=list, description="inputs that are assumed and move the result, the largest first"
    )
    assumed: Amount | None = Field(
        default=None, description="the result with all assumptions at their worse and at their better ends together"
    )
    notes: list[str]

    def __str__(self) -> str:
        return f"{amount_text(self.result, self.provenance == 'predicted')}; bottleneck: {self.bottleneck}"


def amount_text(amount: Amount, predicted: bool) -> str:
    """An amount in words, with the word predicted and the interval where it is."""
    if predicted and not amount.is_exact:
        return f"predicted {amount.low:.3g} to {amount.high:.3g} {amount.unit} (middle {amount.mid:.3g})"
    return f"{'predicted ' if predicted else ''}{amount.mid:.3g} {amount.unit}"


def mission_budget(mission: Mission, inputs: list[MissionInput], work: Workload, cost: TileCost) -> Budget:
    """Works out the budget.

    Raises:
        RequestError: neither the mission nor the bundle states what a figure needs (the sensor's GSD, for one).
    """
    corners = [_figures(mission, work, load) for load in _corners(mission, work, cost)]
    worst, mid, best = corners
    orbit = isinstance(mission, OrbitMission)
    unit = "scenes per orbit" if orbit else "km2 per flight"

    def amount(values: tuple[float, float, float], in_unit: str) -> Amount:
        return Amount(low=min(values), mid=values[1], high=max(values), unit=in_unit)

    def of(name: str, unit_of: str = "B") -> Amount:
        return amount((worst.data[name], mid.data[name], best.data[name]), unit_of)

    assumptions, assumed = _assumptions(mission, inputs, work, cost)
    return Budget(
        mission=mission.name,
        kind="orbit" if orbit else "flight",
        target=work.label,
        device=cost.device,
        power_mode=cost.power_mode,
        provenance="predicted" if cost.predicted else "derived",
        result=amount((worst.result, mid.result, best.result), unit),
        bottleneck=mid.bottleneck,
        why=mid.why,
        limits=[
            LimitRecord(
                name=n, amount=amount((worst.limits[n], mid.limits[n], best.limits[n]), unit), what=mid.words[n]
            )
            for n in mid.limits
        ],
        energy_wh=amount((worst.energy_wh, mid.energy_wh, best.energy_wh), "Wh"),
        energy_available_wh=mid.energy_available_wh,
        data={name: of(name) for name in mid.data},
        facts={
            name: amount((worst.facts[name][0], value, best.facts[name][0]), unit_of)
            for name, (value, unit_of) in mid.facts.items()
            if name in worst.facts and name in best.facts
        },
        figures={"latency": cost.latency, "idle power": cost.idle_w, "energy above idle": cost.dynamic}
        | ({"memory": cost.memory} if cost.memory else {}),
        inputs=inputs,
        assumptions=assumptions,
        assumed=assumed,
        notes=_notes(mission, work, cost, corners),
    )


def _assumptions(
    mission: Mission, inputs: list[MissionInput], work: Workload, cost: TileCost
) -> tuple[list[Assumption], Amount | None]:
    """What the result rests on, each assumption on its own, and all together at their worse and better ends."""
    unit = "scenes per orbit" if isinstance(mission, OrbitMission) else "km2 per flight"

    def result(changed: Mission) -> float:
        return _figures(changed, work, _corners(changed, work, cost)[1]).result

    found, now, worse, better = list[Assumption](), result(mission), mission, mission
    for one in inputs:
        if one.assumed is None or not isinstance(one.value, int | float):
            continue
        ends = sorted(one.assumed, key=lambda value: result(with_value(mission, one.name, value)))
        worse, better = with_value(worse, one.name, ends[0]), with_value(better, one.name, ends[1])
        low, high = (result(with_value(mission, one.name, value)) for value in ends)
        low, high = min(low, now), max(high, now)
        if high - low > LEAST_SWING * now:
            amount = Amount(low=low, mid=now, high=high, unit=unit)
            found.append(
                Assumption(name=one.name, value=one.value, low=one.assumed[0], high=one.assumed[1], result=amount)
            )
    found.sort(key=lambda one: one.result.low - one.result.high)
    if not found:
        return [], None
    low, high = result(worse), result(better)
    return found, Amount(low=min(low, now), mid=now, high=max(high, now), unit=unit)


def _corners(mission: Mission, work: Workload, cost: TileCost) -> list[Load]:
    """The worst, middle and best case: latency and energy are taken at the same end."""
    overlap = mission.compute.overlap_px
    extra = 1 + mission.compute.overhead
    standby = mission.compute.standby_w if mission.compute.standby_w is not None else cost.idle_w.mid
    peaks = [w for w in (mission.power.peak_w, cost.cap_w) if w is not None]
    return [
        Load(
            tile=work.tile,
            overlap=overlap,
            pixel_bytes=work.channels * work.sample_bytes,
            seconds=mission.compute.with_filter(latency, latency) * extra / 1e3,
            dynamic_j=mission.compute.with_filter(dynamic, latency) * extra / 1e3,
            idle_w=cost.idle_w.mid,
            standby_w=min(standby, cost.idle_w.mid),
            limit_w=min(peaks) if peaks else None,
            fits_memory=cost.memory is None or cost.memory.mid <= cost.usable_memory_mb,
        )
        for latency, dynamic in (
            (cost.latency.high, cost.dynamic.high),
            (cost.latency.mid, cost.dynamic.mid),
            (cost.latency.low, cost.dynamic.low),
        )
    ]


def _figures(mission: Mission, work: Workload, load: Load) -> Figures:
    if isinstance(mission, OrbitMission):
        return orbit_figures(mission, load, work.gsd_m)
    return flight_figures(mission, load)


def _notes(mission: Mission, work: Workload, cost: TileCost, corners: list[Figures]) -> list[str]:
    notes = []
    gsd, fits = corners[1].gsd_m, work.gsd_range_m
    if fits and not fits[0] <= gsd <= fits[1]:
        notes.append(
            f"the model was made for {fits[0]:g} to {fits[1]:g} m per pixel, the mission has {gsd:.3g} m: accuracy there is "
            "not known, and rsedge infer asks for --any-gsd"
        )
    kinds = {c.bottleneck for c in corners}
    if len(kinds) > 1:
        ends = f"{corners[0].bottleneck} at the slow end, {corners[2].bottleneck} at the fast end"
        notes.append(f"the bottleneck depends on where in the interval the device falls: {ends}")
    if cost.memory is None:
        notes.append("memory was not checked: no measurement of the process, and no compute.memory_mb")
    return notes
