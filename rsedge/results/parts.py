"""What the stages of a recipe of several parts found, one typed record a stage."""

from __future__ import annotations

from typing import ClassVar

from rsedge.cache.stage import StagePart, StageValue
from rsedge.compress.distill.training import DistillRecord
from rsedge.compress.quantize.int8 import QuantizeRecord
from rsedge.compress.quantize.search import Trial
from rsedge.data.metrics.evidence import Evidence
from rsedge.devices.measure.protocol import Measurement
from rsedge.results.records import Metrics, Predicted, Row, figures


class Recorded(StagePart):
    """Samples of one part, as the teacher gave them to it.

    Attributes:
        samples: by role, how many are kept.
        calls: how often it runs for one sample of the whole.
    """

    samples: dict[str, int]
    calls: float
    params: int


class PartsTeacher(StageValue):
    """The teacher's parts, run together on every role; ``metrics`` are of the whole, on the test set."""

    stage: ClassVar[str] = "teacher"

    parts: dict[str, Recorded]
    metrics: Metrics
    selection: Metrics

    @property
    def reached(self) -> dict[str, dict[str, float]]:
        """Of all parts together."""
        return {"teacher on test": figures(self.metrics), "teacher on selection": figures(self.selection)}


class TaughtPart(StagePart):
    """A smaller part; ``agreement`` is that on selection."""

    record: DistillRecord
    params: int
    agreement: float


class PartsDistill(StageValue):
    """The parts that were taught."""

    stage: ClassVar[str] = "distill"

    parts: dict[str, TaughtPart]


class PartFiles(StagePart):
    """A part's float files: sizes (bytes) by kind, and by runtime the largest difference from torch, relative."""

    sizes: dict[str, int]
    parity: dict[str, float]


class PartsExport(StageValue):
    """The float files of every part, and of the teacher's where a smaller one takes its place."""

    stage: ClassVar[str] = "export"

    parts: dict[str, PartFiles]
    teacher: dict[str, PartFiles]


class RoundedPart(StagePart):
    """A part in INT8 for one runtime.

    Attributes:
        record: of the search.
        chosen: the label of the one that was taken; None where the part stays in float.
        reason: why.
        slower: how many times as long it takes as in float, where it is certainly slower; smaller it may be all the same.
    """

    record: QuantizeRecord
    chosen: str | None
    reason: str
    slower: float | None = None

    @property
    def trials(self) -> list[Trial]:
        """Everything that was tried, layers left in float among it."""
        reverted = () if self.record.reversion is None else self.record.reversion.trials
        return [*self.record.trials, *reverted]


class RoundedWhole(StagePart):
    """All parts for one runtime: ``holds`` whether the gates of the whole do, on selection, with what they are now."""

    parts: dict[str, RoundedPart]
    agreement: float
    holds: bool
    reason: str


class PartsQuantize(StageValue):
    """The parts in INT8, by runtime."""

    stage: ClassVar[str] = "quantize"

    runtimes: dict[str, RoundedWhole]

    @property
    def remarks(self) -> list[str]:
        """Parts that stay in float, and wholes whose gates do not hold."""
        found = []
        for runtime, whole in self.runtimes.items():
            floats = [f"{name} ({part.reason})" for name, part in whole.parts.items() if part.chosen is None]
            found += [f"INT8 on {runtime}: in float stay {'; '.join(floats)}"] if floats else []
            found += [
                f"INT8 on {runtime}: {name} takes {part.slower:.2f} times as long as in float here"
                for name, part in whole.parts.items()
                if part.chosen is not None and part.slower is not None
            ]
            found += (
                []
                if whole.holds
                else [f"INT8 on {runtime}: the gates of the whole do not hold on selection: {whole.reason}"]
            )
        return found

    @property
    def rows(self) -> list[Row]:
        """Every trial, for the report."""
        return [
            {"runtime": runtime, "part": name, "settings": trial.settings.label(), "outcome": trial.outcome, "score": trial.score,
             "drop": trial.drop, "size_bytes": trial.size_bytes, "reason": trial.reason}
            for runtime, whole in self.runtimes.items() for name, part in whole.parts.items() for trial in part.trials
        ]  # fmt: skip


class PartFigures(StagePart):
    """One part of one target on the test set."""

    agreement: float | None
    evidence: dict[str, Evidence]
    size_bytes: int
    precision: str


class WholeFigures(StagePart):
    """One target on the test set: all parts together, and each.

    Attributes:
        numerics: which executables gave the outputs.
        interval, unavailable: the predicted latency of devices that are not here, or why there is none.
    """

    metrics: Metrics
    agreement: float | None
    evidence: dict[str, Evidence]
    parts: dict[str, PartFigures]
    size_bytes: int
    numerics: str
    interval: Predicted | None = None
    unavailable: str | None = None


class PartsVerify(StageValue):
    """Every target on the test set.

    Attributes:
        measurements: of the whole, by target and baseline, timed in one interleaved run.
        parts: of each part, by target (or baseline) and part.
    """

    stage: ClassVar[str] = "verify"

    targets: dict[str, WholeFigures]
    measurements: dict[str, Measurement]
    parts: dict[str, dict[str, Measurement]]
