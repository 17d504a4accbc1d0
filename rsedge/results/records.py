"""What each stage found, one typed record a stage: written by the stage's function, read by later stages and the report.

Files are in the stage's folder; a record holds figures and names. Metrics stay mappings by the names of
:mod:`rsedge.data.metrics.table`, since which there are depends on the task and on what its data hold.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import JsonValue

from rsedge.cache.stage import StagePart, StageValue
from rsedge.compress.distill.training import DistillRecord
from rsedge.compress.prune.pruning import PruneRecord
from rsedge.compress.quantize.int8 import QuantizeRecord
from rsedge.compress.quantize.ptq import PtqSettings
from rsedge.compress.replace.replacing import ReplaceRecord
from rsedge.data.metrics.evidence import Evidence
from rsedge.data.metrics.table import METRICS
from rsedge.data.metrics.verdict import Verdict
from rsedge.data.scenes.splits import HELD_OUT
from rsedge.devices.measure.protocol import Measurement
from rsedge.devices.measure.text_speed import TextSpeed
from rsedge.recipe.student_auto import CandidateRow
from rsedge.results.data import Data as Data
from rsedge.runtimes.bundle.manifest import LanguageRecord
from rsedge.runtimes.file_checks import Check, Difference
from rsedge.runtimes.inference.seams import Seams

Metrics = dict[str, Any]
Row = dict[str, Any]
"""One row of a table of the report; its columns are what the stage has to tell."""


def figures(metrics: Metrics) -> dict[str, float]:
    """Those that gates can hold, without tables and counts."""
    return {name: float(value) for name, value in metrics.items() if name in METRICS and isinstance(value, int | float)}


class Fit(StageValue):
    """The teacher, fitted on boxes.

    Attributes:
        objects: boxes that it learnt from.
        judged: selection samples that chose the best step.
    """

    stage: ClassVar[str] = "fit"

    record: DistillRecord
    objects: int
    judged: int


class Probe(StageValue):
    """The head of an embedding teacher, fitted on labels.

    Attributes:
        penalties: the one taken, per output where they are fitted one by one.
        scores: per output, penalty -> score on groups left out.
    """

    stage: ClassVar[str] = "probe"

    samples: int
    features: int
    penalties: tuple[float, ...]
    scores: tuple[dict[float, float], ...]


class TextBytes(StagePart):
    """Size of a language model's weights: as 32-bit floats, and as stored."""

    f32: int
    stored: int


class TextAgreement(StagePart):
    """Shares of equal tokens and of equal captions."""

    token_agreement: float
    caption_agreement: float


class Language(StageValue):
    """The language model of a captioning teacher as OpenVINO files.

    Attributes:
        record: how it is asked, as in the bundle's manifest.
        alone: the stored language model against the one in torch, on the same image tokens.
    """

    stage: ClassVar[str] = "language"

    record: LanguageRecord
    params: int
    bytes: TextBytes
    alone: TextAgreement


class Student(StageValue):
    """The student that ``auto`` took, and the candidates as rows for the report."""

    stage: ClassVar[str] = "student"

    student: str
    target: str
    limit_ms: float
    reason: str
    candidates: list[CandidateRow]


class Judged(StagePart):
    """The teacher's figures on one role, by precision."""

    metrics: dict[str, Metrics]
    agreement: dict[str, float]


class Teacher(StageValue):
    """The teacher as it is (f32) and by plain NNCF (int8): sizes (bytes) and figures by precision.

    Attributes:
        metrics, agreement: on the test set.
        selection: on what choices may look at.
    """

    stage: ClassVar[str] = "teacher"

    sizes: dict[str, int]
    metrics: dict[str, Metrics]
    agreement: dict[str, float]
    selection: Judged
    params: int
    macs: int | None

    @property
    def reached(self) -> dict[str, dict[str, float]]:
        """Of each precision on each role; what INT8 agrees in is f32's answers."""
        judges = Judged(metrics=self.metrics, agreement=self.agreement)
        return {
            f"teacher-openvino-{precision} on {role}": figures(metrics)
            | ({} if precision == "f32" else {"agreement": judged.agreement[precision]})
            for role, judged in zip(HELD_OUT, (self.selection, judges), strict=True)
            for precision, metrics in judged.metrics.items()
        }


class Distill(StageValue):
    """The student that was taught; ``selection`` scores it as the choice of the best step did."""

    stage: ClassVar[str] = "distill"

    record: DistillRecord
    params: int
    macs: int
    selection: dict[str, float]

    @property
    def reached(self) -> dict[str, dict[str, float]]:
        """Its likeness to the teacher."""
        return {"student on selection": self.selection}


class Prune(StageValue):
    """The student that was pruned."""

    stage: ClassVar[str] = "prune"

    record: PruneRecord


class Replace(StageValue):
    """The student with faster parts in place of slow ones; sizes are those of what came out."""

    stage: ClassVar[str] = "replace"

    record: ReplaceRecord
    params: int
    macs: int


class OwnFile(StagePart):
    """What is made for one target alone: its description, a record of its maker's own, and what was checked of it."""

    artefact: dict[str, JsonValue]
    parity: dict[str, Check]


class Export(StageValue):
    """The student's files: sizes (bytes) by kind, differences between runtimes, and by target what is made for it alone."""

    stage: ClassVar[str] = "export"

    parity: dict[str, Difference]
    sizes: dict[str, int]
    own: dict[str, OwnFile]


class Quantize(StageValue):
    """The INT8 student.

    Attributes:
        before, after: figures of the f32 network and of the first delivered file (OpenVINO's, where there is one).
        details: a row for every model that was tried.
        records: what was tried, by target.
        parity: differences from f32, by target; of those that have a file of their own in ``own``.
    """

    stage: ClassVar[str] = "quantize"

    outcome: str
    reason: str
    details: list[Row]
    before: Row
    after: Row
    records: dict[str, QuantizeRecord]
    parity: dict[str, Difference]
    own: dict[str, OwnFile]

    @property
    def chosen(self) -> PtqSettings | None:
        """The settings of the first delivered file."""
        return next(iter(self.records.values())).chosen

    @property
    def remarks(self) -> list[str]:
        """INT8 files that are rejected: of which targets, why, and with what figures."""
        rejected: dict[str, list[str]] = {}
        for target, record in self.records.items():
            if (why := record.rejection) is not None:
                rejected.setdefault(why, []).append(target)
        return [f"INT8 is rejected for {', '.join(targets)}: {why}" for why, targets in rejected.items()]


class Predicted(StagePart):
    """A latency (ms) that was not measured, and what it rests on."""

    low_ms: float
    mid_ms: float
    high_ms: float
    basis: str


class TargetFigures(StagePart):
    """What was found of one target on the test set.

    Attributes:
        numerics: which executable gave the outputs.
        interval, unavailable: the predicted latency of devices that are not here, or why there is none.
        seams: what tiling does to its map of the largest scene; None where there is none of some size.
    """

    metrics: Metrics
    agreement: float
    evidence: dict[str, Evidence]
    size_bytes: int
    numerics: str
    interval: Predicted | None = None
    unavailable: str | None = None
    seams: Seams | None = None


class Layers(StagePart):
    """Layers of one artefact with their mean times, as the runtime's profiler names them."""

    name: str
    runtime: str
    device: str
    precision: str
    threads: int
    runs: int
    layers: list[Row]


class Verify(StageValue):
    """Every target and baseline on the test set.

    Attributes:
        steps: figures of the student as each training step left it, f32 on OpenVINO.
        measurements: timed in one interleaved run, by name of target, baseline or ``step-STAGE``.
    """

    stage: ClassVar[str] = "verify"

    targets: dict[str, TargetFigures]
    steps: dict[str, Metrics]
    measurements: dict[str, Measurement]
    layers: list[Layers]


class BundleCheck(StagePart):
    """How a bundle did on its own golden vector; None where only the device can tell."""

    golden: dict[str, Any] | None
    note: str | None


class Bundles(StageValue):
    """The bundles' checks, and the verdicts that they carry, by target."""

    stage: ClassVar[str] = "bundle"

    checks: dict[str, BundleCheck]
    verdicts: dict[str, Verdict]


class Crossval(StageValue):
    """Metrics over all folds, by network (``teacher``, ``f32``, INT8 targets by name), and how sure those of the students are.

    ``notes`` say what is to be known of a network's figures.
    """

    stage: ClassVar[str] = "crossval"

    folds: int
    metrics: dict[str, Metrics]
    evidence: dict[str, dict[str, Evidence]]
    notes: dict[str, str]


class TeacherCaptions(StagePart):
    """The teacher's own captions, in torch."""

    texts: list[str]
    tokens: list[list[int]]
    metrics: Metrics


class TargetCaptions(StagePart):
    """Captions of one target; ``speed`` where it runs on this machine."""

    texts: list[str]
    speed: TextSpeed | None
    metrics: Metrics
    evidence: dict[str, Evidence]


class Captions(StageValue):
    """Captions by target, beside the teacher's and the references that the data have."""

    stage: ClassVar[str] = "captions"

    teacher: TeacherCaptions
    references: list[tuple[str, ...]] | None
    targets: dict[str, TargetCaptions]
