"""``report.json``: what a run found, as typed records. Field names are a contract that is checked from outside.

Sizes are bytes, latencies milliseconds, times seconds. A target's latency is either measured (``latency_ms``), or
predicted (``interval``, never a bare number), or unavailable (with the reason).
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rsedge.data.band_values import BandValues
from rsedge.data.errors import RequestError
from rsedge.data.files import read_json, write_json
from rsedge.data.metrics.evidence import Evidence
from rsedge.data.metrics.verdict import Gate, Verdict
from rsedge.data.metrics.verdict import Outcome as VerdictOutcome
from rsedge.data.moments import DateTime
from rsedge.devices.measure.protocol import LatencyMs, Measurement, Speedup
from rsedge.devices.measure.soak import Soak
from rsedge.devices.mission.budget import Budget
from rsedge.runtimes.file_checks import Check
from rsedge.runtimes.inference.seams import Seams

Provenance = Literal["measured", "predicted", "unavailable"]
Outcome = Literal["applied", "rejected", "skipped"]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
"""It goes into a style, where any other text could name a file or an address."""
Figure = float | int | str | bool | None
SCHEMA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Interval(_Record):
    """A predicted latency (ms) with the range it is expected in and where the prediction comes from."""

    low_ms: float = Field(gt=0)
    mid_ms: float = Field(gt=0)
    high_ms: float = Field(gt=0)
    basis: str = Field(description="method and evidence, e.g. 'predicted, roofline v1, public rows'")

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if not self.low_ms <= self.mid_ms <= self.high_ms:
            raise ValueError(f"interval is not ordered: {self.low_ms}, {self.mid_ms}, {self.high_ms}")
        return self


class TeacherRecord(_Record):
    """The teacher as it was given: the row everything is compared with."""

    name: str
    params: int
    macs: int | None = Field(default=None, description="multiply-accumulates of one tile")
    size_bytes: int
    latency_ms: LatencyMs | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None
    licence: str | None = None


class LayerDamage(_Record):
    """What rounding one layer, or neighbours that were taken together, does to the network's outputs."""

    layer: str = Field(description="the first of them")
    layers: int = Field(default=1, ge=1)
    damage: float = Field(
        ge=0, description="RMS difference of outputs over their standard deviation, these alone in INT8"
    )
    in_float: bool = Field(default=False, description="left in float in what is delivered")
    target: str | None = None


class LayerWidth(_Record):
    """Outputs of a layer (channels, features) before and after a stage; None where there is no such layer."""

    layer: str
    before: int | None
    after: int | None


class StageRecord(_Record):
    """One step of the compression: figures before and after, what became of it and why.

    ``details`` holds the step's own table (pruning steps, quantization trials), one dict of figures per row.
    """

    name: str
    outcome: Outcome
    before: dict[str, Figure] = Field(default_factory=dict)
    after: dict[str, Figure] = Field(default_factory=dict)
    seconds: float = Field(default=0.0, ge=0)
    memory_bytes: int | None = Field(
        default=None,
        ge=0,
        description="most memory that the run's process held in the stage, pages of files left out",
    )
    reason: str | None = None
    details: list[dict[str, Figure]] = Field(default_factory=list)
    widths: list[LayerWidth] = Field(
        default_factory=list,
        description="of the student's layers, where the stage changed them; in the order of the network",
    )
    damage: list[LayerDamage] = Field(default_factory=list, description="of each layer, in the order in which they run")


class _Artefact(_Record):
    name: str
    runtime: str
    device: str
    precision: str
    provenance: Provenance
    latency_ms: LatencyMs | None = None
    interval: Interval | None = None
    throughput_per_s: float | None = None
    size_bytes: int | None = None
    peak_rss_bytes: int | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    agreement: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of pixels or samples with the teacher's class, mean cosine of embeddings, R² of values",
    )
    measurement: Measurement | None = Field(default=None, description="the full measuring record, samples left out")
    speedup: Speedup | None = Field(
        default=None, description="how many times faster than the teacher on OpenVINO f32, measured in the same run"
    )
    reason: str | None = Field(default=None, description="why a figure is unavailable, or a note on it")

    @model_validator(mode="after")
    def _latency_fits(self) -> _Artefact:
        if self.provenance == "measured" and (self.latency_ms is None or self.interval is not None):
            raise ValueError(f"{self.name}: a measured latency needs latency_ms and no interval")
        if self.provenance == "predicted" and (self.interval is None or self.latency_ms is not None):
            raise ValueError(f"{self.name}: a predicted latency needs an interval and no latency_ms")
        if self.provenance == "unavailable" and (self.interval or self.latency_ms or not self.reason):
            raise ValueError(f"{self.name}: an unavailable latency has no figure and says the reason")
        if self.measurement is not None and (self.measurement.samples_ms or self.measurement.turns_ms):
            self.measurement = self.measurement.without_samples()
        return self

    @property
    def central_ms(self) -> float | None:
        """p50 of a measured latency or the middle of a predicted interval (ms); for ordering and plots only."""
        if self.latency_ms is not None:
            return self.latency_ms.p50
        return self.interval.mid_ms if self.interval is not None else None


class BaselineRecord(_Artefact):
    """Something to compare with that is not delivered: the teacher on OpenVINO f32, or quantized by plain NNCF."""


class PartRow(_Record):
    """One part of a network of several: its file, how like the teacher's part it is, and how long one call takes."""

    name: str
    precision: str
    size_bytes: int
    agreement: float | None = Field(
        default=None, ge=0, le=1, description="with the teacher's part, on what that was given"
    )
    latency_ms: LatencyMs | None = Field(default=None, description="of one call; None where it was not measured")
    teacher_ms: LatencyMs | None = Field(
        default=None, description="of the teacher's part on OpenVINO in f32, in the same turns"
    )
    calls: float | None = Field(default=None, description="how often it runs for one sample of the whole")


class TargetRecord(_Artefact):
    """One delivered artefact with everything that was checked on it."""

    parity: dict[str, Check] | None = Field(
        default=None,
        description="difference from the f32 reference on the same input, and whether its compiler takes it",
    )
    gates: list[Gate] = Field(default_factory=list)
    evidence: dict[str, Evidence] = Field(
        default_factory=dict, description="by metric: intervals of the figure and of its difference from the teacher's"
    )
    params: int | None = None
    macs: int | None = None
    bundle: str | None = Field(default=None, description="path relative to the run folder")
    parts: list[PartRow] = Field(default_factory=list, description="of a network of several parts, in order")
    seams: Seams | None = Field(default=None, description="what tiling does to its class map of a whole scene")
    soak: Soak | None = Field(default=None, description="what `rsedge soak` left for this very bundle, where it did")

    @property
    def judged(self) -> Verdict:
        """Its gates together."""
        return Verdict.of(self.gates)


class SplitRecord(_Record):
    """One role: number of tiles or samples, the scenes they come from, whether they have labels, and whether that is little to
    judge by."""

    tiles: int | None = Field(ge=0, description="None: views of its blocks are drawn anew in training")
    scenes: list[str] = Field(default_factory=list)
    labelled: bool = False
    pixels: int | None = None
    note: str | None = None


class SceneRecord(_Record):
    """A scene's size in pixels, GSD (m), bands, hash, and where and when it was taken, where its file says so."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    gsd_m: float | None = None
    bands: list[str] = Field(default_factory=list)
    sha256: str | None = None
    bounds: tuple[float, float, float, float] | None = Field(
        default=None, description="west, south, east, north (degrees, WGS 84)"
    )
    taken: str | None = Field(default=None, description="as its file or STAC item has it")


class SplitBlock(_Record):
    """A rectangle of a scene (pixels) that belongs to one split; drawn on the map of splits."""

    scene: str
    split: str
    row: int = Field(ge=0)
    col: int = Field(ge=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class DataRecord(_Record):
    """The data of a run: hash of its manifest, the splits, and what is needed to draw them."""

    manifest_sha256: str
    splits: dict[str, SplitRecord]
    scenes: dict[str, SceneRecord] = Field(default_factory=dict)
    blocks: list[SplitBlock] = Field(default_factory=list)
    bands: list[BandValues] = Field(default_factory=list, description="per band of the contract, over all valid values")


class LayerTime(_Record):
    """One layer as the runtime's profiler names it, with its mean time (ms)."""

    name: str
    type: str
    kernel: str
    ms: float = Field(ge=0)


class LayerProfile(_Record):
    """Layers of one artefact in the order of execution. Profiling slows a model down: their sum is above the latency."""

    name: str
    runtime: str
    device: str
    precision: str
    threads: int | None = None
    runs: int = Field(gt=0)
    layers: list[LayerTime]


class Environment(_Record):
    """What the figures depend on."""

    cpu: str
    instruction_sets: tuple[str, ...]
    cores: int | None
    threads: int = Field(description="of every measurement")
    python: str
    platform: str
    versions: dict[str, str] = Field(description="of the tools that decide what a stage makes")

    @property
    def machine(self) -> tuple[object, ...]:
        """What two measurements must share to be set against each other."""
        return self.cpu, self.instruction_sets, self.cores, self.threads


class Origin(_Record):
    """What the results come from: enough to do the run again, and to tell that what flies is what was judged."""

    recipe: str = Field(description="as it was resolved, with every default (YAML)")
    recipe_sha256: str
    seed: int
    commit: str | None = Field(
        default=None, description="of rsedge, where it was run from a repository or installed from one"
    )
    stages: dict[str, str] = Field(default_factory=dict, description="SHA-256 of all that later stages see of each")
    bundles: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the manifest, by target")
    key: str | None = Field(default=None, description="fingerprint of the key that signed the bundles")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Report(_Record):
    """The whole of ``report.json``."""

    schema_version: Literal[1] = 1
    name: str
    created: DateTime = Field(default_factory=_now, description="date and time by RFC 3339, UTC")
    rsedge_version: str | None = None
    verdict: VerdictOutcome | None = Field(default=None, description="filled from the gates where left out")
    headline: str | None = Field(
        default=None, description="the verdict in a sentence, and what would decide what is open"
    )
    strict: bool = Field(default=False, description="undecided gates count as failed")
    classes: list[str] = Field(min_length=1)
    class_colours: dict[str, Colour] = Field(default_factory=dict, description="class name -> '#rrggbb', optional")
    teacher: TeacherRecord
    stages: list[StageRecord] = Field(default_factory=list)
    targets: list[TargetRecord] = Field(default_factory=list)
    baselines: list[BaselineRecord] = Field(default_factory=list)
    environment: Environment | None = None
    origin: Origin | None = None
    data: DataRecord
    seconds: float | None = Field(default=None, description="wall time of the run")
    notes: list[str] = Field(default_factory=list)
    budgets: list[Budget] = Field(default_factory=list, description="one per target where the recipe has a mission")

    layers: list[LayerProfile] = Field(
        default_factory=list, description="measured on this machine: a deployed artefact, and the teacher for contrast"
    )

    @model_validator(mode="after")
    def _verdict_fits(self) -> Report:
        judged = self.judged
        for name, found in (("verdict", judged.outcome), ("headline", judged.headline)):
            if getattr(self, name) is None:
                setattr(self, name, found)
            elif getattr(self, name) != found:
                raise ValueError(f"{name} says '{getattr(self, name)}', the gates say '{found}'")
        return self

    @property
    def judged(self) -> Verdict:
        """The gates of all targets together."""
        return Verdict.of(g for t in self.targets for g in t.gates)


def save_report(report: Report, path: str | Path) -> None:
    """Writes ``report.json`` atomically."""
    write_json(path, report.model_dump(mode="json"))


def load_report(path: str | Path) -> Report:
    """Reads ``report.json``.

    Raises:
        RequestError: the file is missing, is not JSON or is not a report; names the first field that is wrong.
    """
    found = read_json(path)
    try:
        return Report.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "report"
        writer = found.get("rsedge_version") if isinstance(found, dict) else None
        by = f"; rsedge {writer} wrote it" if isinstance(writer, str) else ""
        raise RequestError(
            f"{path}: not a report of this version: {field}: {first['msg']}{by}; `rsedge run` on the same recipe and folder "
            "writes it anew"
        ) from error


def report_of(run: str | Path) -> Report:
    """The report of a run: of its folder, or the ``report.json`` itself.

    Raises:
        RequestError: it is neither, or the run wrote no report yet; else as :func:`load_report`.
    """
    place = Path(run)
    if not place.is_dir():
        return load_report(place)
    path = place / "report.json"
    if path.exists():
        return load_report(path)
    if (place / "recipe.resolved.yaml").exists():
        raise RequestError(f"{place}: this run has no report yet; the same `rsedge run` again goes on to its end")
    if (place / "manifest.json").exists():
        raise RequestError(f"{place}: is a bundle and no run; give the folder of the run that made it")
    raise RequestError(
        f"{place}: is no run folder: it holds no report.json; give the --run-dir of a run, or its report.json"
    )


def page_of(run: str | Path) -> Path:
    """The page of a run, by its folder or its ``report.json``.

    Raises:
        RequestError: there is none.
    """
    place = Path(run)
    page = (place if place.is_dir() else place.parent) / "report.html"
    if not page.is_file():
        raise RequestError(f"{page}: no such page; the same `rsedge run` on the folder writes it")
    return page


def report_schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json``."""
    return Report.model_json_schema(mode="serialization")
