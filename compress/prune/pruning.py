"""Structured pruning in steps: plan, cut whole channel groups and blocks, measure, recover by distillation, keep or roll back.

A step counts only if it pays: latency is taken right after the cut, and a cut that brings no latency is undone before
any recovery is spent on it, unless parameters are the target; a cut whose score stays too low after recovery, or that loses what
is asked of the network, is undone as well. Both are recorded with their figures. The channel groups are those of DepGraph (Fang et
al. 2023).

Plans, cuts and random draws depend only on the weights and ``seed``. Decisions follow the callbacks: what a cut brings in latency
is asked of one hook that holds both networks against each other: it can time them side by side, and say what it cannot tell.
"""

from __future__ import annotations

import copy
import itertools
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rsedge.compress.prune.damage import Limits
from rsedge.compress.prune.depth import residual_blocks
from rsedge.compress.prune.finding import find_groups, kept_layers, removable_together
from rsedge.compress.prune.groups import ChannelGroup, Example, Kind, Removal, explain_groups, remove_channels
from rsedge.compress.prune.importance import Gradients, Importance, channel_scores
from rsedge.compress.prune.latency_plan import least_ms, plan_by_latency
from rsedge.compress.prune.layer_times import LatencyTable, LayerTimes, TimeLayers, time_layers
from rsedge.compress.prune.norms import retake_statistics
from rsedge.compress.prune.plan import CostModel, Scope, count_macs, count_params, lowest_widths, plan_removal
from rsedge.compress.prune.refit import refit
from rsedge.compress.prune.turning import turn_heads
from rsedge.compress.standing import Standing, TakeStanding, lost
from rsedge.data.errors import RequestError
from rsedge.data.files import read_json, sha256_of, write_json
from rsedge.data.record import Record
from rsedge.models.structure import load_model, remove_blocks, removed_blocks, save_model, tensors_digest, widths_of

PruneKind = Kind | Literal["blocks"]
Outcome = Literal["applied", "rejected", "skipped"]
STATE_FILE = "state.json"
_SLACK = 0.05
"""Part by which some network may be predicted faster than the smallest one, whose narrow layers fill a device worse."""
_SCORE_REJECTIONS = 2
"""After this many score rejections in a row the remaining steps are not tried: each would cost a recovery."""


class LatencyEstimate(Record):
    """Milliseconds of one inference with a 95 % interval; ``predicted`` figures are never shown without the word."""

    ms: float = Field(gt=0)
    low: float = Field(ge=0)
    high: float
    provenance: Literal["measured", "predicted"]


class LatencyRatio(Record):
    """A candidate's latency as a share of that of the network it was cut from, with a 95 % interval.

    ``planned`` is the share that further cuts are planned by: the prediction, as long as the measurement does not contradict it,
    so that the same recipe plans the same cuts beside other work. ``note`` says what could not be told.
    """

    value: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float
    planned: float = Field(gt=0)
    provenance: Literal["measured", "predicted"]
    note: str = ""


class PruneTarget(Record):
    """Exactly one aim: a latency (ms) or a share (0..1) of the unpruned latency, MACs or parameters."""

    latency_ms: float | None = Field(default=None, gt=0)
    latency_ratio: float | None = Field(default=None, gt=0, lt=1)
    macs_ratio: float | None = Field(default=None, gt=0, lt=1)
    params_ratio: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one(self) -> PruneTarget:
        given = [k for k, v in self.model_dump().items() if v is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of latency_ms, latency_ratio, macs_ratio, params_ratio (got {given})")
        return self

    @property
    def metric(self) -> Literal["macs", "params"]:
        """What the planner cuts: parameters for ``params_ratio``, MACs otherwise (as the stand-in for latency)."""
        return "params" if self.params_ratio is not None else "macs"

    @property
    def by_latency(self) -> bool:
        return self.latency_ms is not None or self.latency_ratio is not None


class PruneSettings(Record):
    """How to prune. ``max_drop`` is in the score's unit, ``min_gain`` a share of the latency before the step."""

    target: PruneTarget
    steps: int = Field(default=4, ge=1, le=64)
    importance: Importance = "taylor"
    scope: Scope = "global-per-cost"
    round_to: int = Field(default=8, ge=1, le=64)
    min_gain: float = Field(default=0.02, ge=0, lt=1)
    max_drop: float = Field(default=0.01, ge=0)
    max_layer_ratio: float = Field(default=0.75, gt=0, lt=1)
    ignored: tuple[str, ...] = Field(default=(), description="layers whose output channels stay")
    taylor_batches: int = Field(default=8, ge=1)
    refit_batches: int = Field(default=0, ge=0, description="batches of a least-squares fit after each cut, 0: none")
    norm_batches: int = Field(default=8, ge=0, description="batches on which batch norms are set anew after each cut")
    kinds: tuple[PruneKind, ...] = Field(
        default=("channels", "heads", "head-dims", "units", "blocks"), min_length=1, description="what may go"
    )
    damage_batches: int = Field(
        default=2, ge=1, description="scope latency: selection batches on which each cut's damage is measured"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _latency_by_latency(self) -> PruneSettings:
        if self.scope == "latency" and not self.target.by_latency:
            raise ValueError("scope: latency plans by milliseconds; give target: latency_ms or latency_ratio")
        return self

    @model_validator(mode="after")
    def _blocks_by_latency(self) -> PruneSettings:
        if set(self.kinds) == {"blocks"} and self.scope != "latency":
            raise ValueError("kinds: blocks alone go with scope: latency; name another kind too, or that scope")
        return self


class NetFigures(Record):
    """What a network costs and how well it does; ``score`` and ``standing`` are None where they were not taken."""

    params: int
    macs: int
    latency: LatencyEstimate
    score: float | None = None
    standing: Standing | None = None


class PruneStep(Record):
    """One step: ``after`` holds the figures of the candidate, whether it was kept or not."""

    step: int
    outcome: Outcome
    reason: str
    before: NetFigures
    after: NetFigures | None = None
    aim: float | None = Field(default=None, description="MACs, parameters or (scope latency) ms the plan went for")
    removed: dict[str, int] = Field(default_factory=dict, description="channels removed per group")
    blocks: tuple[str, ...] = Field(default=(), description="blocks removed whole")
    compared: LatencyRatio | None = None
    seconds: float = 0.0


class LayerMs(Record):
    """What a layer takes by the table before any pruning and after all of it (ms); 0 where it is gone."""

    before: float
    after: float
    provenance: Literal["measured", "predicted"]


class PruneRecord(Record):
    """The whole stage, for the report."""

    outcome: Outcome
    reason: str
    reached: bool
    latency_ratio: float = Field(description="after / before, from the pairs compared in each kept step")
    settings: PruneSettings
    before: NetFigures
    after: NetFigures
    steps: tuple[PruneStep, ...]
    groups: str = Field(description="why channels are coupled, as text")
    widths: dict[str, dict[str, Any]]
    removed_blocks: tuple[str, ...] = ()
    layers: dict[str, LayerMs] = Field(default_factory=dict, description="scope latency: where the time is")
    seconds: float


@dataclass(frozen=True)
class PruneHooks:
    """What the pipeline does for the pruner.

    Attributes:
        score: module -> accuracy, higher is better.
        latency: module -> latency on the target device, measured or predicted; of the unpruned network.
        compare: network, candidate cut from it -> what the cut brings on the target device.
        recover: trains the module in place after a cut (recovery distillation); gets the step number.
        gradients: for importance ``taylor``: backward of the distillation loss on one batch.
        loss: for scope ``latency``: batch number -> what gives a module's loss on that batch, the same at each call.
        time_layers: for scope ``latency``: ms of the network and of single layers on the target device.
        inputs: for ``refit_batches`` and ``norm_batches``: the network's inputs of one batch by number.
        standing: module -> how it stands to what is asked of it; a cut that loses what the unpruned one had is undone.
        progress: called with one line of text at each event.
    """

    score: Callable[[nn.Module], float]
    latency: Callable[[nn.Module], LatencyEstimate]
    compare: Callable[[nn.Module, nn.Module], LatencyRatio]
    recover: Callable[[nn.Module, int], None]
    gradients: Gradients | None = None
    loss: Callable[[int], Callable[[nn.Module], float]] | None = None
    time_layers: TimeLayers | None = None
    inputs: Callable[[int], Tensor] | None = None
    standing: TakeStanding = lambda module: None
    progress: Callable[[str], None] | None = None


def prune(
    module: nn.Module,
    example: Example,
    settings: PruneSettings,
    hooks: PruneHooks,
    *,
    workdir: str | Path | None = None,
    factory: str = "module",
    kwargs: dict[str, Any] | None = None,
) -> tuple[nn.Module, PruneRecord]:
    """Prunes a copy of ``module`` until the target is reached or the steps are used up.

    Args:
        example: input (1, ...), or a tuple of all inputs, on the module's device; MACs are counted on it.
        workdir: each finished step is kept here; the same call after a kill goes on behind the last finished step.
        factory, kwargs: how to rebuild the unpruned network, written beside the kept weights.

    Returns:
        The pruned network in eval mode (an unpruned copy where every step was rejected) and the record.

    Raises:
        RequestError: nothing can be pruned, a setting names no layer, Taylor importance has no gradients, or the target lies under
            what the limits allow.
    """
    return _Pruner(module, example, settings, hooks, workdir, factory, kwargs or {}).run()


def _failed_by_score(step: PruneStep) -> bool:
    """Whether a step was rolled back for its score; a score is only taken where latency gained."""
    return step.outcome == "rejected" and step.after is not None and step.after.score is not None


def _scaled(before: LatencyEstimate, by: LatencyRatio) -> LatencyEstimate:
    return LatencyEstimate(
        ms=before.ms * by.value, low=before.ms * by.low, high=before.ms * by.high, provenance=by.provenance
    )


def _up(value: float) -> float:
    """To three digits and never down: what is named as the least can be asked for."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2) if value else 1.0
    return float(f"{math.ceil(value / unit) * unit:.3g}")


class _Pruner:
    def __init__(
        self,
        module: nn.Module,
        example: Example,
        settings: PruneSettings,
        hooks: PruneHooks,
        workdir: str | Path | None,
        factory: str,
        kwargs: dict[str, Any],
    ) -> None:
        self.original = copy.deepcopy(module).eval()
        self.best = copy.deepcopy(self.original)
        self.example, self.settings, self.hooks = example, settings, hooks
        self.workdir = Path(workdir) if workdir is not None else None
        self.factory, self.kwargs = factory, kwargs
        self.groups = self._groups(self.original)
        self.full_width = {g.name: g.channels for g in self.groups}
        self.times: LayerTimes | None = None
        self.blocks: list[str] = []
        if settings.scope == "latency":
            self._check_hooks()
            keep = kept_layers(self.original, settings.ignored)
            found = residual_blocks(self.original, example, keep) if "blocks" in settings.kinds else []
            self.blocks = removable_together(self.original, found)
        free = [g for g in self.groups if not g.blocked]
        if not self.blocks and all(g.channels <= g.rounding(settings.round_to) for g in free):
            why = f", those that could are no wider than round_to: {settings.round_to}" if free else ""
            raise RequestError(
                f"prune: no channel group of this network can be pruned{why}:\n" + explain_groups(self.groups)
            )
        self.steps: list[PruneStep] = []
        self.kept: str | None = None
        self.key = self._key()

    def run(self) -> tuple[nn.Module, PruneRecord]:
        if not self._resume():
            latency = self.hooks.latency(self.original)
            self.first = self._judged(self._figures(self.original, latency), self.original)
            self._time_layers()
            self._refuse_impossible()
            self._save()
        while len(self.steps) < self.settings.steps and not self._reached() and not self._stuck():
            begun = time.perf_counter()
            step, candidate = self._step(len(self.steps) + 1)
            if candidate is not None:
                self.best = candidate
            self.steps.append(step.model_copy(update={"seconds": time.perf_counter() - begun}))
            self._save()
            self._say(f"prune step {step.step}: {step.outcome} ({step.reason})")
        return self.best, self._record()

    # -- one step -----------------------------------------------------------------------------------------------

    def _step(self, number: int) -> tuple[PruneStep, nn.Module | None]:
        before = self._now()
        whole = copy.deepcopy(self.best)
        groups = self._groups(whole)
        turn_heads(whole, groups)
        candidate = copy.deepcopy(whole)
        aim, removal, blocks = self._plan(candidate, groups, number, before)
        if not removal and not blocks:
            reason = "no group can lose more channels at these limits"
            return PruneStep(step=number, outcome="skipped", reason=reason, before=before, aim=aim), None
        remove_channels(candidate, groups, removal)
        remove_blocks(candidate, blocks)
        self._check_runs(candidate, removal)
        self._refit(candidate, whole, groups, removal)
        self._retake(candidate)
        compared = self.hooks.compare(self.best, candidate)
        after = self._figures(candidate, _scaled(before.latency, compared))
        removed = {name: len(channels) for name, channels in removal.items()}

        def finished(outcome: Outcome, reason: str, figures: NetFigures) -> PruneStep:
            return PruneStep(
                step=number, outcome=outcome, reason=reason + noted, before=before, after=figures, aim=aim, removed=removed,
                blocks=tuple(blocks), compared=compared,
            )  # fmt: skip

        gain, word = 1 - compared.value, compared.provenance
        noted = f"; {compared.note}" if compared.note else ""
        # Where size is what is wanted, a step always brings some, whatever the latency of so small a network does meanwhile.
        if gain < self.settings.min_gain and self.settings.target.params_ratio is None:
            reason = f"no gain: {word} latency changed by {-gain:+.1%}, needed {-self.settings.min_gain:+.1%}"
            return finished("rejected", reason, after), None
        self._recover(candidate, number)
        after = self._judged(after, candidate)
        drop = (self.first.score or 0.0) - (after.score or 0.0)
        if not drop <= self.settings.max_drop:  # also for NaN
            reason = f"score {after.score:.4f} is {drop:.4f} under the unpruned, allowed {self.settings.max_drop:.4f}"
            return finished("rejected", reason, after), None
        if (why := lost(self.first.standing, after.standing)) is not None:
            return finished("rejected", why, after), None
        return finished("applied", f"{word} latency {-gain:+.1%}, score {-drop:+.4f}", after), candidate.eval()

    def _check_runs(self, candidate: nn.Module, removal: Removal) -> None:
        inputs = self.example if isinstance(self.example, tuple) else (self.example,)
        try:
            with torch.no_grad():
                candidate.eval()(*inputs)
        except (RuntimeError, ValueError, AssertionError) as error:  # what the network itself checks
            why, where = str(error).partition("\n")[0], ", ".join(sorted(removal))
            raise RequestError(
                f"prune: the network does not run without some channels of {where}: {why}; name the layers that must stay as they "
                "are under steps.prune.ignored"
            ) from error

    def _refit(self, candidate: nn.Module, whole: nn.Module, groups: list[ChannelGroup], removal: Removal) -> None:
        count = self.settings.refit_batches
        if not count:
            return
        if self.hooks.inputs is None:
            raise RequestError("prune.refit_batches: there are no inputs to fit to; set it to 0")
        batches = [self.hooks.inputs(i) for i in range(count)]
        fitted = refit(candidate, whole, groups, removal, batches, self.settings.seed)
        self._say(f"fitted {len(fitted)} layers anew after the cut")

    def _retake(self, candidate: nn.Module) -> None:
        """Batch norms' statistics, before anything is judged; without inputs they stay."""
        inputs, count = self.hooks.inputs, self.settings.norm_batches
        if inputs is None or not count:
            return
        norms = retake_statistics(candidate, (inputs(i) for i in range(count)))
        if norms:
            self._say(f"took the statistics of {norms} batch norms again on {count} batches")

    def _plan(
        self, candidate: nn.Module, groups: list[ChannelGroup], number: int, before: NetFigures
    ) -> tuple[float, Removal, list[str]]:
        scores = channel_scores(
            candidate,
            groups,
            self.settings.importance,
            seed=self.settings.seed + number,
            gradients=self.hooks.gradients,
            batches=self.settings.taylor_batches,
        )
        if self.times is not None:
            return self._plan_by_latency(candidate, groups, scores, number)
        cost = CostModel(candidate, self.example, groups, self.settings.target.metric)
        aim = self._aim(number, before, cost.total)
        removal = plan_removal(
            cost,
            scores,
            aim,
            scope=self.settings.scope,
            round_to=self.settings.round_to,
            full_width=self.full_width,
            max_layer_ratio=self.settings.max_layer_ratio,
        )
        return aim, removal, []

    def _plan_by_latency(
        self, candidate: nn.Module, groups: list[ChannelGroup], scores: dict[str, Tensor], number: int
    ) -> tuple[float, Removal, list[str]]:
        assert self.times is not None and self.hooks.loss is not None
        table, limits, blocks = (
            LatencyTable(self.times, candidate, groups),
            self._limits(),
            self._blocks_left(candidate),
        )
        now = table.total({})
        aim = self._not_where_it_failed(now * self._step_ratio(number), now)
        losses = [self.hooks.loss(i) for i in range(self.settings.damage_batches)]
        removal, gone = plan_by_latency(
            candidate, groups, scores, blocks, table, limits, lambda net: sum(of(net) for of in losses) / len(losses),
            max(aim, least_ms(table, groups, blocks, limits)),
        )  # fmt: skip
        return aim, removal, gone

    def _step_ratio(self, number: int) -> float:
        """The share of the present latency to go for: an equal factor of the way left."""
        left = self.settings.steps - number + 1
        return min(1.0, float((self._ratio_aim() / self._planned_ratio()) ** (1 / left)))

    def _groups(self, net: nn.Module) -> list[ChannelGroup]:
        return find_groups(net, self.example, self.settings.ignored, self.settings.kinds)

    def _limits(self) -> Limits:
        return Limits(self.full_width, self.settings.round_to, self.settings.max_layer_ratio)

    def _blocks_left(self, candidate: nn.Module) -> list[str]:
        gone = removed_blocks(candidate)
        return [name for name in self.blocks if name not in gone]

    def _check_hooks(self) -> None:
        if self.hooks.loss is None or self.hooks.time_layers is None:
            raise RequestError("prune.scope: 'latency' needs a loss and times of layers on the target")

    def _time_layers(self) -> None:
        if self.settings.scope == "latency" and self.hooks.time_layers is not None:
            self.times = time_layers(self.original, self.example, self.groups, self.hooks.time_layers)
            self._say(f"timed {len(self.times.curves)} layers ({self.times.provenance})")

    def _refuse_impossible(self) -> None:
        """A target that lies under what is left where everything that may go is gone."""
        target, slack = self.settings.target, 0.0
        if target.by_latency:
            least, aim = self._least_latency(), self._ratio_aim()
            slack = _SLACK if self.first.latency.provenance == "predicted" else 0.0
            ms = f"{self.first.latency.provenance} {_up(least * self.first.latency.ms):g} ms"
            floor = f"{_up(least):g} of the latency, {ms}"
        else:
            free = [g for g in self.groups if not g.blocked]
            cost = CostModel(self.original, self.example, self.groups, target.metric)
            lowest = lowest_widths(free, self.settings.round_to, self.full_width, self.settings.max_layer_ratio)
            least = cost.cost({g.name: g.channels - lowest[g.name] for g in free}) / cost.total
            aim = target.params_ratio or target.macs_ratio or 1.0
            floor = f"{_up(least):g} of the {'parameters' if target.metric == 'params' else 'MACs'}"
        if aim < (1 - slack) * least:
            field, value = next((k, v) for k, v in target.model_dump().items() if v is not None)
            way = f"raise {field} or max_layer_ratio" if least < 1 else "leave prune out, or name a macs_ratio instead"
            raise RequestError(
                f"prune.target.{field}: {value:g} cannot be reached; the least that max_layer_ratio: "
                f"{self.settings.max_layer_ratio:g}, round_to: {self.settings.round_to} and ignored leave is {floor}; {way}"
            )

    def _least_latency(self) -> float:
        """Share of the latency left where all goes that may: predicted of that network, or by the table of what is measured.

        A prediction has no noise, and what it counts beside layers (launches) stays where widths fall. 0 where there is neither:
        nothing is refused for a machine too busy to tell.
        """
        limits = self._limits()
        if self.first.latency.provenance == "measured":
            table = self.times and LatencyTable(self.times, self.original, self.groups)
            return least_ms(table, self.groups, self.blocks, limits) / table.total({}) if table else 0.0
        smallest, free = copy.deepcopy(self.original), [g for g in self.groups if not g.blocked]
        gone = {g.name: list(range(int(limits.options(g)[-1]), g.channels)) for g in free}
        removal = {name: channels for name, channels in gone.items() if channels}
        remove_channels(smallest, self.groups, removal)
        remove_blocks(smallest, self.blocks)
        self._check_runs(smallest, removal)
        compared = self.hooks.compare(self.original, smallest)
        return 0.0 if compared.note else min(1.0, compared.planned)

    def _aim(self, number: int, before: NetFigures, now: float) -> float:
        """What to go for: an equal part of the way left, but only half-way to an aim that cost the score."""
        part = 1 / (self.settings.steps - number + 1)
        target = self.settings.target
        if target.by_latency:
            saved = (self._planned_ratio() - self._ratio_aim()) * part
            aim = max(0.02 * now, now - saved / self._slope(before))
        else:
            whole = self.first.params if target.metric == "params" else self.first.macs
            aim = now - (now - whole * (target.params_ratio or target.macs_ratio or 1.0)) * part
        return self._not_where_it_failed(aim, now)

    def _not_where_it_failed(self, aim: float, now: float) -> float:
        """Half-way at most to an aim that cost the score."""
        failed = [s.aim for s in self.steps if _failed_by_score(s) and s.aim is not None and s.aim < now]
        return max(aim, (now + max(failed)) / 2) if failed else aim

    def _slope(self, before: NetFigures) -> float:
        """Share of the unpruned latency per MAC: from the kept steps so far (the fixed part drops out), else proportional."""
        kept = [s for s in self.steps if s.outcome == "applied" and s.after]
        proportional = self._planned_ratio() / before.macs
        macs = self.first.macs - before.macs
        if not kept or macs <= 0:
            return proportional
        return min(max((1 - self._planned_ratio()) / macs, proportional / 4), proportional * 4)

    def _ratio_aim(self) -> float:
        """The wanted share of the unpruned latency."""
        target = self.settings.target
        return target.latency_ratio or (target.latency_ms or 0.0) / self.first.latency.ms

    def _latency_ratio(self) -> float:
        """Latency kept, as a share of the unpruned: each kept step against what it replaced."""
        return math.prod(s.compared.value for s in self.steps if s.outcome == "applied" and s.compared)

    def _planned_ratio(self) -> float:
        return math.prod(s.compared.planned for s in self.steps if s.outcome == "applied" and s.compared)

    def _recover(self, candidate: nn.Module, number: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed + number)
            self.hooks.recover(candidate, number)
        candidate.zero_grad(set_to_none=True)
        candidate.eval()

    # -- state --------------------------------------------------------------------------------------------------

    def _now(self) -> NetFigures:
        kept = [s.after for s in self.steps if s.outcome == "applied" and s.after]
        return kept[-1] if kept else self.first

    def _figures(self, module: nn.Module, latency: LatencyEstimate) -> NetFigures:
        return NetFigures(params=count_params(module), macs=count_macs(module, self.example), latency=latency)

    def _judged(self, figures: NetFigures, module: nn.Module) -> NetFigures:
        """The figures with how well the network does."""
        return figures.model_copy(
            update={"score": float(self.hooks.score(module)), "standing": self.hooks.standing(module)}
        )

    def _reached(self) -> bool:
        now, target = self._now(), self.settings.target
        if target.by_latency:
            return self._planned_ratio() <= self._ratio_aim()
        if target.params_ratio is not None:
            return now.params <= target.params_ratio * self.first.params
        return now.macs <= (target.macs_ratio or 1.0) * self.first.macs

    def _score_rejections(self) -> int:
        last = itertools.takewhile(_failed_by_score, reversed(self.steps))
        return sum(1 for _ in last)

    def _stuck(self) -> bool:
        return self._score_rejections() >= _SCORE_REJECTIONS or bool(self.steps and self.steps[-1].outcome == "skipped")

    def _key(self) -> str:
        digest = tensors_digest(self.original)
        example = self.example if isinstance(self.example, tuple) else (self.example,)
        shapes = [list(tensor.shape) for tensor in example]
        return sha256_of([self.settings.model_dump(), digest, shapes, self.factory, self.kwargs])

    def _save(self) -> None:
        if self.workdir is None:
            return
        previous = self.kept
        if self.steps and self.steps[-1].outcome == "applied":
            self.kept = f"step-{len(self.steps):02d}"
            save_model(self.best, self.workdir / self.kept, self.factory, self.kwargs)
        state = {
            "key": self.key,
            "first": self.first.model_dump(),
            "kept": self.kept,
            "steps": [s.model_dump() for s in self.steps],
            "times": self.times and self.times.model_dump(),
        }
        write_json(self.workdir / STATE_FILE, state)
        if previous and previous != self.kept:
            shutil.rmtree(self.workdir / previous, ignore_errors=True)

    def _resume(self) -> bool:
        path = self.workdir / STATE_FILE if self.workdir is not None else None
        if self.workdir is None or path is None or not path.is_file():
            return False
        state = read_json(path)
        if not isinstance(state, dict) or state.get("key") != self.key:
            return False
        self.first = NetFigures.model_validate(state["first"])
        self.steps = [PruneStep.model_validate(s) for s in state["steps"]]
        self.kept = state["kept"]
        self.times = LayerTimes.model_validate(state["times"]) if state.get("times") else None
        if self.kept is not None:
            device = next(self.original.parameters()).device
            self.best = load_model(self.workdir / self.kept, lambda *_: copy.deepcopy(self.original)).to(device)
        self._say(f"prune: going on behind step {len(self.steps)} of {self.settings.steps}")
        return True

    def _record(self) -> PruneRecord:
        kept = [s for s in self.steps if s.outcome == "applied"]
        after = self._now()
        reached = self._reached()
        if kept:
            outcome: Outcome = "applied"
            change = self._latency_ratio() - 1
            words = sorted({s.compared.provenance for s in kept if s.compared})
            reason = f"{len(kept)} of {len(self.steps)} steps kept; {' and '.join(words)} latency {change:+.1%}"
            reason += "" if reached else "; the target was not reached"
        elif self.steps:
            outcome = "skipped" if self.steps[-1].outcome == "skipped" else "rejected"
            reason = f"every step was rolled back; last: {self.steps[-1].reason}"
        else:
            outcome, reason = "skipped", "the network meets the target unpruned"
        return PruneRecord(
            outcome=outcome,
            reason=reason,
            reached=reached,
            latency_ratio=self._latency_ratio(),
            settings=self.settings,
            before=self.first,
            after=after,
            steps=tuple(self.steps),
            groups=explain_groups(self.groups),
            widths=widths_of(self.best),
            removed_blocks=tuple(removed_blocks(self.best)),
            layers=self._layers(),
            seconds=sum(s.seconds for s in self.steps),
        )

    def _layers(self) -> dict[str, LayerMs]:
        if self.times is None:
            return {}
        before, after = (
            LatencyTable(self.times, net, self._groups(net)).by_layer() for net in (self.original, self.best)
        )
        known = self.times.provenance
        return {n: LayerMs(before=ms, after=after.get(n, 0.0), provenance=known) for n, ms in before.items()}

    def _say(self, text: str) -> None:
        if self.hooks.progress is not None:
            self.hooks.progress(text)
