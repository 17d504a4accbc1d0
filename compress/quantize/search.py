"""Search over post-training quantization settings, for any runtime: the fastest of those that are good enough.

No single NNCF setting is right: in NNCF's own conformance results the bias-correction mode alone decides between -1 and
-16 points on a small network, and SmoothQuant helps one transformer and hurts the next. So a short ladder is tried,
cheapest and fastest first, under a time budget, and every rung is recorded. Which passes is said by the recipe's own gates on
the selection set (:mod:`rsedge.compress.quantize.acceptance`); which of these is fastest is asked once, of all of
them side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import nncf
from nncf import errors as nncf_errors
from pydantic import Field

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.layer_times import LayerTimes
from rsedge.compress.quantize.ptq import PtqSettings, Tiles
from rsedge.compress.quantize.sensitivity import Probe
from rsedge.data.errors import RequestError
from rsedge.data.record import Record

M = TypeVar("M")

# KeyError: full bias correction of ONNX graphs with residual connections (NNCF 3.4).
_FAILURES = (
    RuntimeError,
    ValueError,
    KeyError,
    nncf_errors.InternalError,
    nncf_errors.UnsupportedModelError,
    nncf_errors.ValidationError,
)

_SHOWN = 300
"""Letters of what a runtime says of a model that it refuses."""
Hosts = Literal["any", "vnni"]
WeightBits = Literal["int8", "int4"]
WEIGHTS = PtqSettings(activations="float")
INT4_SHARES = (1.0, 0.9, 0.75, 0.5)


class SearchSettings(Record):
    """``hosts="vnni"`` says that every host has VNNI (or AMX): weights may use all 8 bits; a wrong claim saturates.

    ``seconds`` is a budget: no trial starts after it, the first always runs. ``latency_tolerance`` is the share within
    which two latencies count as equal, and size, then the better score decide.
    """

    max_trials: int = Field(default=8, ge=1)
    max_reversions: int = Field(default=24, ge=0, description="trials with layers left in float, where none passed")
    max_probes: int = Field(
        default=64, ge=0, description="layers whose damage alone is measured, or groups of them; 0: none"
    )
    max_tunings: int = Field(default=2, ge=0, description="trials with layers in float whose INT8 is slower")
    seconds: float = Field(default=900.0, gt=0)
    hosts: Hosts = "any"
    latency_tolerance: float = Field(default=0.1, ge=0, lt=1)
    float_precision: Literal["auto", "f32"] = Field(
        default="auto", description="of what is left in float; auto: bf16 where that is faster and good enough"
    )
    weights_only: WeightBits | None = Field(
        default=None, description="leave activations in float; the smallest that passes"
    )
    ladder: tuple[PtqSettings, ...] = Field(default=(), description="settings to try instead of the built-in ladder")


class Trial(Record):
    """One setting tried. ``drop`` is the f32 network's score minus its own; figures are None where quantization failed, and
    ``latency_ms`` where no choice between passing ones had to be made."""

    settings: PtqSettings
    outcome: Literal["passed", "missed", "failed"]
    reason: str
    found: Acceptance | None = None
    drop: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    seconds: float

    @property
    def score(self) -> float | None:
        return None if self.found is None else self.found.score


@dataclass(frozen=True)
class Fastest:
    """Which of several models was taken, why, and their latencies (ms) where they were timed."""

    name: str
    reason: str
    latency_ms: Mapping[str, float]


class Speed(Record):
    """Time of one model over another's, taken in turns, with a 95 % interval; ``noise`` says why it decides nothing."""

    ratio: float
    low: float
    high: float
    noise: str | None = None

    @property
    def faster(self) -> bool:
        """Whether it certainly takes less time."""
        return self.noise is None and self.high < 1

    @property
    def slower(self) -> bool:
        """Whether it certainly takes more time, or nobody knows."""
        return self.noise is not None or self.low > 1

    def words(self) -> str:
        """The ratio in words."""
        return self.noise or f"{self.ratio:.3f} of the time ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Tuning(Generic[M]):
    """What a runtime lets be tried on a model that passes (:mod:`rsedge.compress.quantize.tune`).

    Attributes:
        race: time of the first model over that of the second, on this machine.
        bf16: a model -> the same with bf16 for what is left in float; None where the processor has none.
        layer_times: a model -> time of its layers in INT8 beside that in float.
    """

    race: Callable[[M, M], Speed]
    bf16: Callable[[M], M] | None = None
    layer_times: Callable[[M], Sequence[LayerTimes]] | None = None


@dataclass(frozen=True)
class Ground(Generic[M]):
    """One network for one runtime: how it is quantized there, and how the outcome is judged.

    Attributes:
        make: calibration tiles and settings -> the quantized model.
        accept: a model -> what it does on the selection set, on its actual executable.
        size: a model's bytes.
        fastest: models that passed, by name, with their trials -> the choice. Called with two or more.
        layers: names of the layers that may be left in float, in the order in which they run.
        tuning: what can be tried on a model that passes; None where it is not timed here.
        probe: what lets layers of a model be judged one by one; None where the runtime has no such way.
    """

    make: Callable[[Tiles, PtqSettings], M]
    accept: Callable[[M], Acceptance]
    size: Callable[[M], int]
    fastest: Callable[[Mapping[str, tuple[M, Trial]]], Fastest]
    layers: tuple[str, ...] = ()
    tuning: Tuning[M] | None = None
    probe: Callable[[M], Probe] | None = None


@dataclass(frozen=True)
class Attempt(Generic[M]):
    """One trial and its model, None where quantization failed."""

    trial: Trial
    model: M | None


@dataclass(frozen=True)
class Found(Generic[M]):
    """The outcome of :func:`search`; ``model`` is None where every trial failed."""

    model: M | None
    best: int | None
    trials: tuple[Trial, ...]
    reason: str
    not_tried: int

    @property
    def passed(self) -> bool:
        return self.best is not None and self.trials[self.best].outcome == "passed"


def ladder(transformer: bool, hosts: Hosts = "any") -> list[PtqSettings]:
    """OpenVINO's settings in the order they are tried: fast graphs before slow ones, likely gains before unlikely."""
    base = PtqSettings(overflow="disable" if hosts == "vnni" else "enable")

    def rung(**changes: object) -> PtqSettings:
        return base.model_copy(update=changes)

    rungs = [rung(preset="performance")]
    if transformer:
        rungs = [rung(preset="mixed", smooth_quant=a) for a in (0.95, None, 0.15, 0.5)] + rungs
    rungs += [
        rung(preset="performance", bias_correction="full"),
        rung(preset="mixed", bias_correction="full"),
        *([] if transformer else [rung(preset="mixed")]),
        rung(preset="mixed", range_estimator="quantile"),
        rung(preset="mixed", range_estimator="minmax"),
        rung(preset="mixed", range_estimator="histogram"),
        rung(preset="mixed", bias_correction="full", float_layers="last"),
        rung(preset="mixed", bias_correction="full", float_layers="first-last"),
    ]
    return rungs


def onnx_ladder(transformer: bool, saturates: bool) -> list[PtqSettings]:
    """The settings that matter for explicit symmetric INT8 in an ONNX file.

    Args:
        saturates: some host's processor adds 8-bit products in 16 bits (ONNX Runtime without VNNI; GPUs do not).
    """
    base = PtqSettings(overflow="enable" if saturates else "disable")

    def rung(**changes: object) -> PtqSettings:
        return base.model_copy(update=changes)

    smoothed = [rung(smooth_quant=a) for a in (0.95, 0.15)] if transformer else []
    return [
        *smoothed,
        base,
        rung(bias_correction="full"),
        rung(range_estimator="quantile"),
        rung(range_estimator="minmax"),
        rung(float_layers="last"),
        rung(float_layers="first-last"),
    ]


def weights_ladder(bits: WeightBits) -> list[PtqSettings]:
    """Weights alone, the smallest first: as many layers in 4 bits as the limit bears, then 8 bits everywhere.

    At last the layers at the ends stay in float: the first tells apart bands that hardly differ, and neither is large.
    """
    shares = INT4_SHARES if bits == "int4" else ()
    ends: tuple[Literal["first", "first-last"], ...] = ("first", "first-last")
    return [*(WEIGHTS.model_copy(update={"int4_share": share}) for share in shares), WEIGHTS,
            *(WEIGHTS.model_copy(update={"float_layers": end}) for end in ends)]  # fmt: skip


def search(
    ground: Ground[M],
    calibration: Tiles,
    planned: Sequence[PtqSettings],
    limit: Limit,
    settings: SearchSettings | None = None,
    on_trial: Callable[[int, int, Trial], None] | None = None,
) -> Found[M]:
    """Tries settings and picks the fastest of those that pass; of equally fast ones the smallest, then the best score.

    Where the settings are of weights alone, they go from the smallest model upwards and end at the first that passes.

    Args:
        calibration: DN tiles, apart from what ``ground.accept`` looks at.
        planned: what to try, in this order.
        on_trial: called after each trial with (done, planned, trial).

    Raises:
        RequestError: unusable calibration, or nothing to try.
    """
    settings = settings or SearchSettings()
    planned = list(planned)[: settings.max_trials]
    if not planned:
        raise RequestError("quantize: no settings to try")
    started = time.perf_counter()
    trials: list[Trial] = []
    models: dict[int, M] = {}
    for rung in planned:
        if trials and time.perf_counter() - started > settings.seconds:
            break
        made = attempt(ground, calibration, rung, limit)
        trial = made.trial
        if made.model is not None:
            models[len(trials)] = made.model
        trials.append(trial)
        if on_trial is not None:
            on_trial(len(trials), len(planned), trial)
        if trial.outcome == "passed" and rung.activations == "float":
            break
    best, reason = _choose(ground, trials, models)
    model = models[best] if best is not None else None
    return Found(model, best, tuple(trials), reason, len(planned) - len(trials))


def attempt(ground: Ground[M], calibration: Tiles, rung: PtqSettings, limit: Limit) -> Attempt[M]:
    """One setting, quantized and judged.

    Raises:
        RequestError: unusable calibration.
    """
    return judged(ground, lambda: ground.make(calibration, rung), rung, limit)


def judged(ground: Ground[M], make: Callable[[], M], rung: PtqSettings, limit: Limit) -> Attempt[M]:
    """As :func:`attempt`, of a model that ``make`` gives.

    Raises:
        RequestError: unusable calibration.
    """
    begun = time.perf_counter()

    def failed(reason: str) -> Attempt[M]:
        return Attempt(Trial(settings=rung, outcome="failed", reason=reason, seconds=time.perf_counter() - begun), None)

    try:
        made = make()
    except _FAILURES as error:
        lines = str(error).strip().splitlines()
        return failed(f"NNCF {nncf.__version__} refused: {type(error).__name__} {lines[-1] if lines else ''}")
    try:
        found = ground.accept(made)
    except RequestError as error:  # the runtime refuses what was made of these settings; others may do
        return failed(f"does not run: {' '.join(str(error).split())[:_SHOWN]}")
    if found.score != found.score:
        return failed("the score is not a number")
    trial = Trial(
        settings=rung,
        outcome="passed" if limit.passes(found) else "missed",
        reason=limit.words(found),
        found=found,
        drop=limit.drop(found),
        size_bytes=ground.size(made),
        seconds=time.perf_counter() - begun,
    )
    return Attempt(trial, made)


def rank_of(trial: Trial, limit: Limit) -> tuple[bool, float, float]:
    """Larger is better; a trial that failed is the worst."""
    return (False, float("-inf"), float("-inf")) if trial.found is None else limit.rank(trial.found)


def _choose(ground: Ground[M], trials: list[Trial], models: Mapping[int, M]) -> tuple[int | None, str]:
    """The index and the reason; latencies that were taken for the choice go into ``trials``."""
    if not models:
        return None, f"all {len(trials)} settings failed; first: {trials[0].reason}"
    passed = [i for i in models if trials[i].outcome == "passed"]
    count = f"{len(passed)} that passed of {len(trials)}"
    if not passed:
        best = max(models, key=lambda i: (_nearness(trials[i]), -i))
        label, reason = trials[best].settings.label(), trials[best].reason
        return best, f"none of {len(trials)} settings passed; the best was {label}: {reason}"
    if len(passed) == 1 or trials[passed[-1]].settings.activations == "float":
        best = passed[-1]
        smallest = trials[best].settings.activations == "float"
        why = f"the smallest of {count}" if smallest else f"the only one that passed of {len(trials)}"
        return best, f"{trials[best].settings.label()}: {why}; {trials[best].reason}"
    chosen = ground.fastest({str(i): (models[i], trials[i]) for i in passed})
    for i in passed:
        trials[i] = trials[i].model_copy(update={"latency_ms": chosen.latency_ms.get(str(i))})
    best = int(chosen.name)
    return best, f"{trials[best].settings.label()}: {chosen.reason} ({count}); {trials[best].reason}"


def _nearness(trial: Trial) -> tuple[float, float]:
    assert trial.found is not None
    return -trial.found.shortfall, trial.found.score
