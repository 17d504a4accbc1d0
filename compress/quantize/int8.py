"""From a network to an INT8 model that is good enough, whatever it takes: calibration, training under rounding, layers in float.

The order is that of cost in flight: settings of calibration cost nothing there, training neither but an hour here, layers in float
cost latency. What none of them mends is delivered as ``rejected``, with the figures of all that was tried.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol

from pydantic import Field
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.layer_times import LayerTimes
from rsedge.compress.quantize.ptq import Calibration, PtqSettings, Saturation, Tiles
from rsedge.compress.quantize.qat import QatRecord
from rsedge.compress.quantize.revert import Reversion, revert
from rsedge.compress.quantize.search import Found, Ground, M, SearchSettings, Trial, attempt, rank_of, search
from rsedge.compress.quantize.sensitivity import Sensitivity, sensitivity
from rsedge.compress.quantize.tune import TuningStep, tune
from rsedge.data.record import Record

PROBE_SHARE = 0.1
"""Of the budget in seconds, for the damage of each layer alone."""
Train = Callable[[Trial], tuple[nn.Module, QatRecord]]
"""From the best trial of calibration to the network trained under its rounding."""


class Range(Record):
    """A figure over several draws."""

    min: float
    median: float
    max: float


class Spread(Record):
    """The chosen setting on every draw of the calibration tiles."""

    draws: int
    passed: int
    score: Range
    gates: dict[str, Range]
    failed: int = Field(default=0, description="draws on which quantization itself failed")


class QuantizeRecord(Record):
    """All of it, for the report; ``best`` indexes ``trials`` of calibration (None where every one failed).

    ``chosen`` are the settings of the delivered model, ``found`` what it does on the selection set.
    """

    outcome: Literal["applied", "rejected"]
    reason: str
    runtime: str
    reference: Acceptance
    max_drop: float
    hopeless: str | None = Field(default=None, description="what the f32 network itself misses")
    best: int | None
    chosen: PtqSettings | None
    found: Acceptance | None
    trials: tuple[Trial, ...]
    not_tried: int
    qat: QatRecord | None = None
    trained: bool = Field(default=False, description="the delivered model was trained under rounding")
    sensitivity: Sensitivity | None = Field(default=None, description="before layers were left in float")
    reversion: Reversion | None = None
    tuning: tuple[TuningStep, ...] = Field(
        default=(), description="what was tried to make the model that passes faster"
    )
    layer_times: tuple[LayerTimes, ...] = Field(default=(), description="before layers went back to float for speed")
    spread: Spread | None = None
    calibration: Calibration
    saturation: Saturation | None = None
    hosts: Literal["any", "vnni"]
    seconds: float

    @property
    def rejection(self) -> str | None:
        """Why it is no INT8 model as asked for, in a line with the figures of what is delivered all the same; None where it is."""
        if self.outcome != "rejected":
            return None
        if self.chosen is None or self.found is None:
            return self.reason
        # What of the gates was missed, and by how much, is in the reason.
        likeness = f"likeness to the teacher {self.found.score:.4f} (f32 {self.reference.score:.4f})"
        return f"{self.reason}; delivered all the same: {self.chosen.label()}, {likeness}"


class Grounds(Protocol[M]):
    """How a network comes to its runtime: once for the student, again for what training made of it."""

    def __call__(self, net: nn.Module) -> Ground[M]: ...


@dataclass(frozen=True)
class Hooks:
    """What the pipeline does meanwhile.

    Attributes:
        train: training under simulated rounding; None where the recipe has none.
        on_trial: after each trial, with what is going on, (done, planned, trial).
        say: one line of text.
    """

    train: Train | None = None
    on_trial: Callable[[str, int, int, Trial], None] = lambda *_: None
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Quantized(Generic[M]):
    """``model`` is None where nothing could be quantized at all; ``net`` is the float network behind it."""

    model: M | None
    net: nn.Module
    record: QuantizeRecord


def to_int8(
    net: nn.Module,
    grounds: Grounds[M],
    calibration: Tiles,
    planned: Sequence[PtqSettings],
    limit: Limit,
    settings: SearchSettings,
    record: Calibration,
    runtime: str,
    hooks: Hooks | None = None,
    draws: Sequence[Tiles] = (),
) -> Quantized[M]:
    """Quantizes a network for one runtime.

    Args:
        planned: settings of calibration to try, in this order.
        limit: with what the f32 network does on the same set.
        record: of ``calibration``.
        draws: calibration tiles drawn again, on which the chosen setting is repeated.

    Raises:
        RequestError: unusable calibration.
    """
    return _Int8(net, grounds, calibration, limit, settings, hooks or Hooks()).run(planned, record, runtime, draws)


class _Int8(Generic[M]):
    def __init__(
        self,
        net: nn.Module,
        grounds: Grounds[M],
        calibration: Tiles,
        limit: Limit,
        settings: SearchSettings,
        hooks: Hooks,
    ) -> None:
        self.net, self.grounds, self.calibration = net, grounds, calibration
        self.limit, self.settings, self.hooks = limit, settings, hooks
        self.given, self.ground = net, grounds(net)
        self.model: M | None = None
        self.trial: Trial | None = None
        self.qat: QatRecord | None = None
        self.sensitivity: Sensitivity | None = None
        self.reversion: Reversion | None = None
        self.tuning: tuple[TuningStep, ...] = ()
        self.layer_times: tuple[LayerTimes, ...] = ()
        self.words: list[str] = []

    def run(
        self, planned: Sequence[PtqSettings], record: Calibration, runtime: str, draws: Sequence[Tiles]
    ) -> Quantized[M]:
        started = time.perf_counter()
        hopeless = None
        if self.limit.hopeless:
            hopeless = f"the f32 student itself misses {self.limit.reference.reason}: quantization cannot mend it"
            self.hooks.say(hopeless)
        found = self._calibrate(planned)
        mendable = self.trial is not None and not found.passed and hopeless is None
        if mendable and self.hooks.train is not None:
            self._train(self.hooks.train)
        self._probe()
        if mendable and not self._passed() and self.settings.max_reversions and not self._weights_only():
            self._revert(started)
        if self._passed():
            self._tune()
        applied = self._passed() and hopeless is None
        spread = self._spread(draws)
        if spread is not None:
            self.words.append(
                f"over {spread.draws} draws of calibration tiles {spread.passed} passed, score {spread.score.min:.4f} to "
                f"{spread.score.max:.4f}"
            )
        return Quantized(
            self.model,
            self.net,
            QuantizeRecord(
                outcome="applied" if applied else "rejected",
                reason="; ".join([*([hopeless] if hopeless else []), *self.words]),
                runtime=runtime,
                reference=self.limit.reference,
                max_drop=self.limit.max_drop,
                hopeless=hopeless,
                best=found.best,
                chosen=None if self.trial is None else self.trial.settings,
                found=None if self.trial is None else self.trial.found,
                trials=found.trials,
                not_tried=found.not_tried,
                qat=self.qat,
                trained=self.net is not self.given,
                sensitivity=self.sensitivity,
                reversion=self.reversion,
                tuning=self.tuning,
                layer_times=self.layer_times,
                spread=spread,
                calibration=record,
                hosts=self.settings.hosts,
                seconds=time.perf_counter() - started,
            ),
        )

    def _passed(self) -> bool:
        return self.trial is not None and self.trial.outcome == "passed"

    def _weights_only(self) -> bool:
        return self.trial is not None and self.trial.settings.activations == "float"

    def _calibrate(self, planned: Sequence[PtqSettings]) -> Found[M]:
        found = search(self.ground, self.calibration, planned, self.limit, self.settings, self._reporting("quantize"))
        self.model, self.words = found.model, [found.reason]
        self.trial = None if found.best is None else found.trials[found.best]
        return found

    def _train(self, train: Train) -> None:
        assert self.trial is not None
        self.hooks.say(f"no setting passed ({self.trial.reason}): training under rounding")
        trained, self.qat = train(self.trial)
        ground = self.grounds(trained)
        made = attempt(ground, self.calibration, self.trial.settings, self.limit)
        trial = made.trial
        if made.model is None or rank_of(trial, self.limit) <= rank_of(self.trial, self.limit):
            self.words.append(f"training under rounding brought nothing ({self.qat.reason})")
            return
        self.net, self.ground, self.model, self.trial = trained, ground, made.model, trial
        self.words.append(f"trained under rounding, {trial.outcome}: {trial.reason}")

    def _probe(self) -> None:
        if self.model is None or self.ground.probe is None or self._weights_only() or not self.settings.max_probes:
            return
        seconds = self.settings.seconds * PROBE_SHARE
        probe = self.ground.probe(self.model)
        self.sensitivity = sensitivity(probe, self.settings.max_probes, seconds, self.hooks.say)
        if self.sensitivity is not None:
            self.hooks.say(self.sensitivity.words())

    def _revert(self, started: float) -> None:
        assert self.trial is not None
        self.hooks.say(f"still not good enough ({self.trial.reason}): leaving layers in float")
        left = max(0.0, self.settings.seconds - (time.perf_counter() - started))
        # Half the budget at least: the last resort must not be what the first steps leave over.
        seconds = max(left, self.settings.seconds / 2)
        reverted = revert(
            self.ground, self.calibration, self.trial, self.limit, self.settings.max_reversions, seconds,
            self._reporting("layers in float"), () if self.sensitivity is None else self.sensitivity.worst_first(),
        )  # fmt: skip
        self.reversion = reverted.record
        self.words.append(self.reversion.reason)
        if reverted.model is None or self.reversion.best is None:
            return
        trial = self.reversion.trials[self.reversion.best]
        if rank_of(trial, self.limit) > rank_of(self.trial, self.limit):
            self.model, self.trial = reverted.model, trial

    def _tune(self) -> None:
        assert self.trial is not None and self.model is not None
        tuned = tune(
            self.ground, self.calibration, self.model, self.trial, self.limit, self.settings, self.hooks.say
        )  # fmt: skip
        self.model, self.trial, self.tuning = tuned.model, tuned.trial, tuned.steps
        self.layer_times = tuned.layer_times
        self.words += [f"{step.trial.settings.label()}: {step.reason}" for step in tuned.steps if step.kept]

    def _reporting(self, what: str) -> Callable[[int, int, Trial], None]:
        return lambda done, total, trial: self.hooks.on_trial(what, done, total, trial)

    def _spread(self, draws: Sequence[Tiles]) -> Spread | None:
        """The delivered setting on each draw; None where there are no others."""
        if self.trial is None or len(draws) < 2:
            return None
        trials = [attempt(self.ground, tiles, self.trial.settings, self.limit).trial for tiles in draws]
        done = [t.found for t in trials if t.found is not None]
        if not done:
            return None
        gates = {name: _range([f.gates[name] for f in done if name in f.gates]) for name in done[0].gates}
        return Spread(
            draws=len(draws),
            passed=sum(t.outcome == "passed" for t in trials),
            score=_range([f.score for f in done]),
            gates=gates,
            failed=len(trials) - len(done),
        )


def _range(values: Sequence[float]) -> Range:
    return Range(min=min(values), median=statistics.median(values), max=max(values))
