"""A mission: the orbit or flight that a bundle is planned for, as a YAML file in which every default is visible.

``orbit:`` or ``flight:`` says which of the two it is. Field descriptions are the comments of the example files. A default is called
assumed where a range of what is usual stands for it (:class:`Assumed`), and only there. Files are read like recipes: ``$import``,
``--set``, errors with place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from rsedge.data.document_check import apply_override, checked
from rsedge.data.documents import Document, Loc, read_document
from rsedge.data.errors import RequestError
from rsedge.data.record import Record

# Wider than anything that flies; figures beyond overflow in what is worked out of them.
LEAST, MOST = 1e-9, 1e12
Positive = Annotated[float, Field(ge=LEAST, le=MOST)]
AtLeastZero = Annotated[float, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]
Overlap = Annotated[float, Field(ge=0, lt=1)]
KINDS = ("orbit", "flight")


@dataclass(frozen=True)
class Assumed:
    """Of a field whose default is assumed: between what values it lies in missions like these, by our own judgement, and what the
    default is taken from."""

    low: float
    high: float
    like: str = ""

    def __str__(self) -> str:
        """Such as ``assumed, as Phi-sat-1, usually 0.1 to 0.6``."""
        return f"assumed{f', {self.like}' if self.like else ''}, usually {self.low:g} to {self.high:g}"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ComputeSection(_Section):
    """The computer, where the bundle's record, a bench file or the device's profile is not to decide."""

    power_mode: str | None = Field(
        default=None, description="a mode that `rsedge devices show DEVICE` lists; null: its default"
    )
    latency_ms: Positive | None = Field(
        default=None, description="measured per tile; null: bench file, bundle, or predicted"
    )
    idle_w: AtLeastZero | None = Field(
        default=None, description="measured board power without work; null: the profile's"
    )
    active_w: Positive | None = Field(default=None, description="measured board power while inferring; null: predicted")
    standby_w: AtLeastZero | None = Field(
        default=None, description="drawn between scenes, 0 if switched off; null: idle_w"
    )
    memory_mb: Positive | None = Field(
        default=None, description="memory of the process; null: as measured, or not checked"
    )
    overhead: Annotated[AtLeastZero, Assumed(0.1, 0.5)] = Field(
        default=0.2, description="time to read, cut, blend and write over inference time"
    )
    overlap_px: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="overlap of tiles; null: an eighth, as infer"
    )

    filter_spares: Share = Field(
        default=0.0,
        description="share of tiles that a filter bundle keeps from this one; `rsedge infer --filter` says it",
    )
    filter_ms: Positive | None = Field(
        default=None, description="measured per tile of the filter bundle; needed with filter_spares"
    )

    @model_validator(mode="after")
    def _filter_costs(self) -> ComputeSection:
        if self.filter_spares and self.filter_ms is None:
            raise ValueError("filter_spares needs filter_ms: a filter looks at every tile itself")
        return self

    @model_validator(mode="after")
    def _watts_fit(self) -> ComputeSection:
        if self.active_w is not None and self.idle_w is not None and self.active_w < self.idle_w:
            raise ValueError(f"active_w ({self.active_w:g}) is less than idle_w ({self.idle_w:g})")
        return self

    def with_filter(self, cost: float, latency_ms: float) -> float:
        """Time or energy of a tile, in any unit, with a filter before the model: what it spares less what it takes itself, at the
        model's power."""
        return cost * (1 - self.filter_spares + (self.filter_ms or 0.0) / latency_ms)


class ResultsSection(_Section):
    """What becomes of a scene after inference."""

    discard_share: Annotated[Share, Assumed(0.1, 0.6, "as Phi-sat-1")] = Field(
        default=0.3, description="of raw data not kept, e.g. cloudy"
    )
    send: Literal["kept-and-map", "map"] = Field(
        default="kept-and-map", description="what is sent: kept raw data and map, or map"
    )
    compression: Annotated[float, Field(ge=1), Assumed(1.5, 3.0)] = Field(
        default=2.0, description="of raw data, lossless"
    )
    map_bits_per_pixel: Annotated[Positive, Assumed(0.05, 0.5)] = Field(
        default=0.2, description="of a compressed class map"
    )


class OrbitSection(_Section):
    """A circular orbit."""

    altitude_km: Annotated[float, Field(ge=150, le=2000)] = Field(
        default=530.0, description="above the equator's radius; Phi-sat-1"
    )
    beta_deg: Annotated[float, Field(ge=-90, le=90)] = Field(
        default=0.0, description="angle of orbit plane and Sun; 0: longest eclipse"
    )
    eclipse_share: Overlap | None = Field(
        default=None, description="of the orbit in shadow; null: from altitude and beta_deg"
    )


class SensorSection(_Section):
    """The instrument; a scene is a rectangle of swath times length."""

    gsd_m: Positive | None = Field(
        default=None, description="ground sampling distance; null: the finest band of the bundle"
    )
    swath_km: Positive = Field(
        default=40.0, description="width of a scene, in which the result counts: pixels of the sensor times gsd_m"
    )
    scene_length_km: Positive | None = Field(
        default=None, description="along the track; null: as long as the swath is wide"
    )
    duty_cycle: Annotated[float, Field(gt=0, le=1), Assumed(0.05, 0.25)] = Field(
        default=0.1, description="share of the orbit with images"
    )


class OrbitPowerSection(_Section):
    """Power for the computer (the payload's share, not the whole satellite's)."""

    sunlit_w: Annotated[AtLeastZero, Assumed(10.0, 40.0, "6U-16U with deployable panels")] = Field(
        default=20.0, description="available in sunlight"
    )
    eclipse_w: Annotated[AtLeastZero, Assumed(0.0, 15.0)] = Field(
        default=5.0, description="available in shadow, from the battery"
    )
    peak_w: Positive | None = Field(default=None, description="most that may be drawn while inferring; null: no limit")
    battery_wh: Positive | None = Field(
        default=None, description="the computer's share of the battery, which sunlight fills again; null: not balanced"
    )
    depth_of_discharge: Annotated[float, Field(gt=0, le=1), Assumed(0.2, 0.4, "to last for years")] = Field(
        default=0.3, description="of it, most in one shadow"
    )
    charge_efficiency: Annotated[float, Field(gt=0, le=1), Assumed(0.85, 0.95)] = Field(
        default=0.9, description="of what charges the battery that comes out again"
    )


class StorageSection(_Section):
    """Memory for results that wait for a pass."""

    capacity_gb: Positive | None = Field(default=None, description="null: no limit")


class DownlinkSection(_Section):
    """Radio to ground stations."""

    rate_mbit_s: Annotated[AtLeastZero, Assumed(1.0, 25.0)] = Field(
        default=5.0, description="S band 1-5, X band 25-300"
    )
    pass_minutes: Annotated[AtLeastZero, Assumed(5.0, 10.0)] = Field(default=8.0, description="usable length of a pass")
    passes_per_day: Annotated[AtLeastZero, Assumed(2.0, 8.0)] = Field(
        default=4.0, description="of all stations together"
    )
    efficiency: Annotated[Share, Assumed(0.7, 0.9)] = Field(default=0.8, description="left after coding and protocol")


class FlightSection(_Section):
    """A survey in straight lines."""

    speed_m_s: Annotated[Positive, Assumed(10.0, 25.0)] = Field(default=15.0, description="over ground")
    height_m: Positive = Field(default=120.0, description="above ground; the usual legal limit for small drones")
    battery_wh: Annotated[Positive, Assumed(100.0, 400.0)] = Field(
        default=200.0, description="shared by motors and computer"
    )
    battery_usable: Annotated[float, Field(gt=0, le=1), Assumed(0.7, 0.9)] = Field(
        default=0.8, description="share used before landing"
    )
    cruise_w: Annotated[Positive, Assumed(100.0, 250.0, "small fixed wing")] = Field(
        default=150.0, description="motors, autopilot and camera"
    )
    turns: Annotated[Overlap, Assumed(0.1, 0.3)] = Field(
        default=0.15, description="share of flight time in turns and transit, without images"
    )


class CameraSection(_Section):
    """A frame camera that looks straight down; defaults as a 45-megapixel camera with a 35 mm lens."""

    focal_length_mm: Positive = Field(default=35.0, description="of the lens")
    pixel_um: Positive = Field(default=4.4, description="edge of a pixel on the sensor")
    width_px: Annotated[int, Field(gt=0)] = Field(default=8192, description="across the track")
    height_px: Annotated[int, Field(gt=0)] = Field(default=5460, description="along the track")
    side_overlap: Overlap = Field(default=0.6, description="of neighbouring lines; for mapping")
    forward_overlap: Overlap = Field(default=0.7, description="of frames in a line; for mapping")
    infer: Literal["each-place-once", "every-frame"] = Field(
        default="each-place-once", description="or every-frame, overlaps included"
    )
    infer_gsd_m: Positive | None = Field(
        default=None, description="frames are resampled to this before inference; null: not"
    )


class FlightPowerSection(_Section):
    """The computer's supply on board."""

    peak_w: Positive | None = Field(default=None, description="most that may be drawn while inferring; null: no limit")


class LinkSection(_Section):
    """Radio to the ground during the flight."""

    rate_mbit_s: AtLeastZero | None = Field(default=None, description="null: data come home on the card, no limit")
    efficiency: Annotated[Share, Assumed(0.7, 0.9)] = Field(default=0.8, description="left after coding and protocol")


class OrbitMission(_Section):
    """A satellite in a circular orbit; the budget is per orbit."""

    name: str = Field(default="orbit", description="names the mission in reports")
    orbit: OrbitSection = Field(description="where it flies")
    sensor: SensorSection = Field(default=SensorSection(), description="what it sees")
    compute: ComputeSection = Field(default=ComputeSection(), description="the computer")
    power: OrbitPowerSection = Field(default=OrbitPowerSection(), description="what the computer may draw")
    results: ResultsSection = Field(default=ResultsSection(), description="what becomes of a scene")
    storage: StorageSection = Field(default=StorageSection(), description="where results wait")
    downlink: DownlinkSection = Field(default=DownlinkSection(), description="how data come down")


class FlightMission(_Section):
    """An aircraft that surveys an area; the budget is per flight."""

    name: str = Field(default="flight", description="names the mission in reports")
    flight: FlightSection = Field(description="how it flies")
    camera: CameraSection = Field(default=CameraSection(), description="what it sees")
    compute: ComputeSection = Field(default=ComputeSection(), description="the computer")
    power: FlightPowerSection = Field(default=FlightPowerSection(), description="what the computer may draw")
    results: ResultsSection = Field(default=ResultsSection(), description="what becomes of a scene")
    link: LinkSection = Field(default=LinkSection(), description="how data come down in flight")


Mission = OrbitMission | FlightMission


class MissionInput(Record):
    """One value of a mission and where it was given: a file and line, a ``--set``, or ``default``."""

    name: str
    value: float | int | str | None
    origin: str
    note: str
    assumed: tuple[float, float] | None = Field(
        default=None, description="where the value is an assumption of ours: between what values it lies"
    )


def load_mission(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Mission, list[MissionInput]]:
    """Reads a mission file, ``--set`` overrides applied, with the origin of every value.

    Raises:
        RequestError: the file, an override or a field is wrong; names file, line, field and the nearest name.
    """
    if not Path(path).is_file():
        raise RequestError(f"{path}: no such mission file; `rsedge budget --example orbit` writes one")
    document = read_document(Path(path), "mission")
    for override in overrides:
        apply_override(document, override)
    given = [k for k in KINDS if k in document.value]
    if len(given) != 1:
        found = "both" if given else "neither"
        raise RequestError(f"{document.place(())}: a mission has either 'orbit' or 'flight'; this file has {found}")
    kind = given[0]
    if document.value[kind] is None:
        document.value[kind] = {}
    mission: Mission = checked(document, OrbitMission) if kind == "orbit" else checked(document, FlightMission)
    return mission, list(_inputs(mission, document, document.value, ()))


def _inputs(section: BaseModel, document: Document, given: Mapping[str, Any], loc: Loc) -> Iterator[MissionInput]:
    """Of a section its inputs; ``given`` is what the document holds of it, whatever the values."""
    for name, field in type(section).model_fields.items():
        value, inner = getattr(section, name), (*loc, name)
        if isinstance(value, BaseModel):
            yield from _inputs(value, document, given.get(name) or {}, inner)
        elif inner != ("name",):
            assumed = None if name in given else assumed_of(field)
            yield MissionInput(
                name=".".join(map(str, inner)),
                value=value,
                origin=str(document.place(inner)) if name in given else "default",
                note=_note(field, assumed),
                assumed=None if assumed is None else (assumed.low, assumed.high),
            )


def assumed_of(field: FieldInfo) -> Assumed | None:
    """What stands for a field that nobody gives; None where its default is no assumption."""
    return next((one for one in field.metadata if isinstance(one, Assumed)), None)


def _note(field: FieldInfo, assumed: Assumed | None) -> str:
    """What a field is, and that it is assumed."""
    return "; ".join(part for part in (field.description, "" if assumed is None else str(assumed)) if part)


def with_value(mission: Mission, name: str, value: float) -> Mission:
    """The mission with another value of ``section.field``."""
    section, _, field = name.partition(".")
    changed = getattr(mission, section).model_copy(update={field: value})
    return mission.model_copy(update={section: changed})


def example(kind: str) -> str:
    """A commented mission file that holds every field with its default.

    Raises:
        RequestError: ``kind`` is neither orbit nor flight.
    """
    if kind not in KINDS:
        raise RequestError(f"--example {kind}: choose from {', '.join(KINDS)}")
    mission = OrbitMission(orbit=OrbitSection()) if kind == "orbit" else FlightMission(flight=FlightSection())
    head = "# A mission for `rsedge budget`. Every value is the default: keep what you know (then given), delete the rest.\n"
    return head + "\n".join(_example_lines(mission)) + "\n"


def _example_lines(mission: BaseModel) -> Iterator[str]:
    for name, field in type(mission).model_fields.items():
        value = getattr(mission, name)
        if not isinstance(value, BaseModel):
            yield _example_line(name, value, field, "")
            continue
        yield f"\n# {(type(value).__doc__ or '').strip()}\n{name}:"
        for inner, inner_field in type(value).model_fields.items():
            yield _example_line(inner, getattr(value, inner), inner_field, "  ")


def _example_line(name: str, value: Any, field: FieldInfo, indent: str) -> str:
    note = _note(field, assumed_of(field))
    text = "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    line = f"{indent}{name}: {text}"
    return f"{line:<32}# {note}" if note else line
