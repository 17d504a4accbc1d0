"""Replacing parts of a network by faster ones: tried, measured, recovered where it must be, undone where it does not pay.

What a replacement brings is asked before any training, on every target: one that is nowhere faster costs nothing more. Then its
score and the gates count; where it has lost too much the network recovers by distillation, and is judged again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field
from torch import Tensor, nn

from rsedge.compress.prune.pruning import LatencyRatio, Outcome
from rsedge.compress.replace.candidates import Candidate, with_activations, with_merged_tokens
from rsedge.compress.standing import TakeStanding, lost
from rsedge.data.record import Record
from rsedge.models.structure import replaced_layers


class ReplaceSettings(Record):
    """What is tried. ``max_drop`` is in the score's unit, of all that stays together; ``min_gain`` a share of the latency."""

    activations: tuple[str, ...] = ("hardswish", "relu")
    merge: tuple[float, ...] = (0.5, 0.25)
    min_gain: float = Field(default=0.02, ge=0, lt=1)
    max_drop: float = Field(default=0.01, ge=0)


class ReplaceTrial(Record):
    """One replacement.

    ``latency``: by target, its share of the time before it. ``score`` is that of the network as it is, ``recovered`` where it was
    trained after that; None where it was not taken.
    """

    what: str
    outcome: Outcome
    reason: str
    latency: dict[str, LatencyRatio]
    score: float | None = None
    recovered: float | None = None
    seconds: float = 0.0


class ReplaceRecord(Record):
    """The whole stage, for the report; ``replaced`` are layers of the network as it came out, ``trained`` whether it recovered."""

    outcome: Outcome
    reason: str
    before: float
    after: float
    trials: tuple[ReplaceTrial, ...]
    replaced: dict[str, dict[str, object]] = Field(default_factory=dict)
    trained: bool = False


@dataclass(frozen=True)
class ReplaceHooks:
    """What the pipeline does for the replacer.

    Attributes:
        score: module -> accuracy, higher is better.
        standing: module -> how it stands to what is asked of it; a replacement that loses what was there before is undone.
        compare: by target: network, candidate -> what the candidate brings there.
        recover: trains the module in place; gets the trial's number. None where nothing is to be trained.
        progress: called with one line of text at each event.
    """

    score: Callable[[nn.Module], float]
    compare: Mapping[str, Callable[[nn.Module, nn.Module], LatencyRatio]]
    recover: Callable[[nn.Module, int], None] | None = None
    standing: TakeStanding = lambda module: None
    progress: Callable[[str], None] | None = None


def replace(
    module: nn.Module, example: Tensor, settings: ReplaceSettings, hooks: ReplaceHooks
) -> tuple[nn.Module, ReplaceRecord]:
    """Tries activations, then merged tokens, on what came out before; of each kind the fastest that passes stays.

    Args:
        example: an input (1, ...), on the module's device.

    Returns:
        The network in eval mode, ``module`` itself where nothing passed, and the record.
    """
    return _Replacer(module.eval(), example, settings, hooks).run()


class _Replacer:
    def __init__(self, module: nn.Module, example: Tensor, settings: ReplaceSettings, hooks: ReplaceHooks) -> None:
        self.net, self.example, self.settings, self.hooks = module, example, settings, hooks
        self.before = self.score = hooks.score(module)
        self.standing = hooks.standing(module)
        self.trials: list[ReplaceTrial] = []
        self.trained = False

    def run(self) -> tuple[nn.Module, ReplaceRecord]:
        for candidates in self._kinds():
            self._try(candidates)
        return self.net.eval(), self._record()

    def _kinds(self) -> Iterator[list[Candidate]]:
        """One kind after the other, each of the network as the one before left it."""
        yield with_activations(self.net, self.settings.activations)
        yield with_merged_tokens(self.net, self.example, self.settings.merge)

    def _try(self, candidates: list[Candidate]) -> None:
        """The faster ones, the fastest first, until one passes."""
        timed = []
        for candidate in candidates:
            changed, begun = candidate.of(self.net), time.perf_counter()
            latency = {target: compare(self.net, changed) for target, compare in self.hooks.compare.items()}
            seconds = time.perf_counter() - begun
            if (slow := self._no_gain(latency)) is None:
                timed.append((candidate, changed, latency, seconds))
                continue
            self._keep(candidate, "rejected", slow, latency, seconds=seconds)
        for candidate, changed, latency, seconds in sorted(timed, key=lambda one: _mean(one[2])):
            if self._judge(candidate, changed, latency, seconds):
                return

    def _no_gain(self, latency: Mapping[str, LatencyRatio]) -> str | None:
        """Why a replacement is not worth trying, in words; None where it is: faster on some target, and slower on none, as far as
        the intervals tell."""
        least, worst = self.settings.min_gain, max(latency, key=lambda target: latency[target].low)
        if latency[worst].low > 1:
            return f"slower on {worst}: {_change(latency[worst])}"
        if not any(found.value <= 1 - least and found.high < 1 for found in latency.values()):
            best = min(latency, key=lambda target: latency[target].value)
            return f"no gain: {_change(latency[best])} on {best}, needed {-least:+.1%}"
        return None

    def _judge(
        self, candidate: Candidate, changed: nn.Module, latency: dict[str, LatencyRatio], seconds: float
    ) -> bool:
        """Whether the replacement stays; it is trained where its score or a gate asks for it."""
        begun, score = time.perf_counter(), self.hooks.score(changed)
        final, recovered, why = score, None, self._against(changed, score)
        if why is not None and self.hooks.recover is not None:
            self.hooks.recover(changed, len(self.trials) + 1)
            final = recovered = self.hooks.score(changed.eval())
            why = self._against(changed, final)
        seconds += time.perf_counter() - begun
        if why is not None:
            self._keep(candidate, "rejected", why, latency, score, recovered, seconds)
            return False
        changes = ", ".join(f"{_change(found)} on {target}" for target, found in latency.items())
        reason = f"{changes}; score changed by {final - self.score:+.4f}"
        self._keep(candidate, "applied", reason, latency, score, recovered, seconds)
        self.net, self.score = changed, final
        self.trained |= recovered is not None
        return True

    def _against(self, changed: nn.Module, score: float) -> str | None:
        """Why a replacement of this score must not stay, in words; None where it may."""
        dropped = self.before - score
        if not dropped <= self.settings.max_drop:  # also for NaN
            return f"score fell by {dropped:.4f}, allowed {self.settings.max_drop:g}"
        return lost(self.standing, self.hooks.standing(changed))

    def _keep(
        self,
        candidate: Candidate,
        outcome: Outcome,
        reason: str,
        latency: dict[str, LatencyRatio],
        score: float | None = None,
        recovered: float | None = None,
        seconds: float = 0.0,
    ) -> None:
        trial = ReplaceTrial(
            what=candidate.words, outcome=outcome, reason=reason, latency=latency, score=score, recovered=recovered, seconds=seconds
        )  # fmt: skip
        self.trials.append(trial)
        if self.hooks.progress is not None:
            self.hooks.progress(f"replace: {candidate.words}: {outcome} ({reason})")

    def _record(self) -> ReplaceRecord:
        kept = [trial for trial in self.trials if trial.outcome == "applied"]
        outcome: Outcome
        if kept:
            outcome, reason = "applied", "; ".join(f"{t.what}: {t.reason}" for t in kept)
        elif self.trials:
            outcome, reason = "rejected", "nothing that was tried stays; the network is as it was"
        else:
            outcome, reason = "skipped", "the network has no SiLU or GELU layers and no blocks that could merge tokens"
        return ReplaceRecord(
            outcome=outcome, reason=reason, before=self.before, after=self.score, trials=tuple(self.trials),
            replaced=replaced_layers(self.net), trained=self.trained,
        )  # fmt: skip


def _mean(latency: Mapping[str, LatencyRatio]) -> float:
    return sum(found.value for found in latency.values()) / len(latency)


def _change(found: LatencyRatio) -> str:
    interval = "" if found.low == found.high else f" ({found.low - 1:+.1%} to {found.high - 1:+.1%})"
    return f"{found.provenance} latency {found.value - 1:+.1%}{interval}"
