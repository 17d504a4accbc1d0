"""What is tried on an INT8 model that passes: bf16 for what is left in float, and layers back to float whose INT8 takes longer.

Neither is known from a table: on this processor a depthwise convolution in INT8 may take twice its time in bf16, on the next
half of it. So the runtime's own profile names candidates, and a race of the whole model before and after decides, with the
recipe's gates on the selection set. A step that brings nothing is undone; every step is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal

from pydantic import Field

from rsedge.compress.quantize.acceptance import Limit
from rsedge.compress.quantize.layer_times import LayerTimes
from rsedge.compress.quantize.ptq import PtqSettings, Tiles
from rsedge.compress.quantize.search import Ground, M, SearchSettings, Speed, Trial, judged
from rsedge.data.record import Record

SAME_SCORE = 0.0005
"""By which likeness may differ and count as no worse: half of what tables show."""
LEAST_GAIN = 0.001
"""Likeness that layers in float have to bring where they bring no speed."""
LEAST_SAVING = 0.03
"""Share of the time that layers in float have to save by the profile: no race tells less from nothing."""
What = Literal["bf16", "layers"]


class TuningStep(Record):
    """One step: the model with it beside the one before."""

    what: What
    trial: Trial
    kept: bool
    reason: str
    speed: Speed | None = Field(
        default=None, description="time with the step over time without it, where it was judged"
    )


@dataclass(frozen=True)
class Tuned(Generic[M]):
    """The model after the steps that were kept, its trial, all steps, and times of layers where they were taken."""

    model: M
    trial: Trial
    steps: tuple[TuningStep, ...]
    layer_times: tuple[LayerTimes, ...] = ()


def tune(
    ground: Ground[M],
    calibration: Tiles,
    model: M,
    trial: Trial,
    limit: Limit,
    settings: SearchSettings,
    say: Callable[[str], None] = lambda _: None,
) -> Tuned[M]:
    """Tries the steps that the runtime offers (``ground.tuning``) on a model that passes.

    Args:
        trial: of ``model``.
        settings: of these ``max_tunings`` and ``seconds``, after which no step begins.
    """
    work = _Tuning(ground, calibration, limit, settings, say, model, trial, [], time.perf_counter() + settings.seconds)
    work.run()
    return Tuned(work.model, work.trial, tuple(work.steps), work.times)


@dataclass
class _Tuning(Generic[M]):
    ground: Ground[M]
    calibration: Tiles
    limit: Limit
    settings: SearchSettings
    say: Callable[[str], None]
    model: M
    trial: Trial
    steps: list[TuningStep]
    deadline: float
    times: tuple[LayerTimes, ...] = ()

    def run(self) -> None:
        tuning = self.ground.tuning
        if tuning is None:
            return
        chosen, bf16 = self.trial.settings, tuning.bf16
        if bf16 is not None and self.settings.float_precision == "auto" and chosen.float_precision == "f32":
            model = self.model
            self._try("bf16", chosen.model_copy(update={"float_precision": "bf16"}), lambda: bf16(model))
        if tuning.layer_times is not None and self.settings.max_tunings and chosen.activations == "int8":
            self.times = tuple(tuning.layer_times(self.model))
            self._revert()

    def _revert(self) -> None:
        """All slow layers at once, then halves of what did not help: what a profile of nodes says the whole need not confirm."""
        least = LEAST_SAVING * sum(layer.int8_ms for layer in self.times)
        slow = sorted((t for t in self.times if t.saved_ms >= 0), key=lambda t: -t.saved_ms)
        queue, tried = [slow], 0
        while queue and tried < self.settings.max_tunings and time.perf_counter() < self.deadline:
            some = queue.pop(0)
            if not some or sum(t.saved_ms for t in some) < least:
                continue
            tried += 1
            names = tuple(name for t in some for name in t.layers)
            rung = self.trial.settings
            rung = rung.model_copy(update={"float_names": (*rung.float_names, *names)})
            if not self._try("layers", rung, lambda rung=rung: self.ground.make(self.calibration, rung)):  # type: ignore[misc]
                middle = (len(some) + 1) // 2
                queue += [some[:middle], some[middle:]] if len(some) > 1 else []

    def _try(self, what: What, rung: PtqSettings, make: Callable[[], M]) -> bool:
        made = judged(self.ground, make, rung, self.limit)
        kept, reason, speed = False, made.trial.reason, None
        if made.model is not None and made.trial.outcome == "passed":
            assert self.ground.tuning is not None
            speed = self.ground.tuning.race(made.model, self.model)
            kept, reason = verdict(what, speed, (made.trial.score or 0.0) - (self.trial.score or 0.0))
        self.steps.append(TuningStep(what=what, trial=made.trial, kept=kept, reason=reason, speed=speed))
        self.say(f"{rung.label()}: {'kept' if kept else 'undone'} ({reason})")
        if kept and made.model is not None:
            self.model, self.trial = made.model, made.trial
        return kept


def verdict(what: What, speed: Speed, gain: float) -> tuple[bool, str]:
    """Whether a step that passes the gates stays, and why.

    bf16 has to be faster; layers in float have to be faster at no loss of likeness, or no slower at a gain.

    Args:
        speed: time with the step over time without it.
        gain: likeness with the step less likeness without it.
    """
    words = f"{speed.words()}, likeness {gain:+.4f}"
    if what == "layers" and gain < -SAME_SCORE:
        return False, f"less like the teacher: {words}"
    if speed.faster or (what == "layers" and gain >= LEAST_GAIN and not speed.slower):
        return True, words
    return False, f"brings nothing: {words}"
