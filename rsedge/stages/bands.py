"""The bands stage: which bands matter to the teacher, and the best ones, where a student keeps a number of them.

A band that is taken away holds its mean over the judged inputs in every valid pixel. That says what the network at hand makes of
the band, not what one that was trained without it would lose: this the verdict on such a student says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext, StageResult
from rsedge.data.bands import InputSpec
from rsedge.data.metrics.importance import Bands, combined, loss_without, shapley
from rsedge.data.metrics.statistics import Statistic, estimate
from rsedge.data.metrics.table import METRICS, headline_order
from rsedge.recipe.importance import ImportanceSection
from rsedge.recipe.student_auto import AUTO
from rsedge.results.importance import BandCost, BandsOfTeacher, Removal
from rsedge.stages.context import Images, RunContext
from rsedge.stages.distill import check_student
from rsedge.stages.export import check_for_targets
from rsedge.tasks.base import HeldOut, Inputs, Prediction

AGREEMENT = "agreement"


def bands_stage(context: StageContext, ctx: RunContext) -> BandsOfTeacher:
    """What the teacher loses without each band, and which bands a student keeps that asks for a number of them."""
    del context
    section, own = section_of(ctx), ctx.seen_as(ctx.teacher.spec.input_spec)
    watched = Watched(own, section.inputs, lambda x: own.teacher_function(x)["logits"])
    removals: list[Removal] = []
    chosen = frozenset(range(own.spec.channels))
    if isinstance(ctx.recipe.student.bands, int):
        removals, chosen = watched.removed(ctx.recipe.student.bands)
    names = own.spec.band_names
    return BandsOfTeacher(
        metric=watched.metric, inputs=len(watched.held_out.inputs), removals=removals,
        bands=watched.costs(section.orders) if "teacher" in section.of else [],
        kept=tuple(names[i] for i in sorted(chosen)) if removals else (),
    )  # fmt: skip


def section_of(ctx: RunContext) -> ImportanceSection:
    return ctx.recipe.importance or ImportanceSection()


def take_bands(ctx: RunContext, result: StageResult[BandsOfTeacher]) -> None:
    """The bands that were kept are the student's, for all stages that follow.

    Raises:
        RequestError: the student does not fit them, or a target.
    """
    if not result.value.kept:
        return
    ctx.look_at(result.value.kept)
    if ctx.recipe.student.name != AUTO:
        check_student(ctx)
        check_for_targets(ctx)


@dataclass
class Watched:
    """A network, judged with some of its bands taken away.

    Attributes:
        ctx: the run as the network sees it.
        count: how many inputs of selection are looked at.
        run: normalised inputs -> logits.
    """

    ctx: RunContext
    count: int
    run: Callable[[Images], Images]
    _figures: dict[Bands, dict[str, Statistic]] = field(default_factory=dict, init=False)

    @cached_property
    def held_out(self) -> HeldOut:
        return self.ctx.selection.few(self.count)

    @cached_property
    def means(self) -> npt.NDArray[np.generic]:
        """(C,) digital numbers."""
        return mean_dn(self.held_out.inputs, self.ctx.spec)

    @cached_property
    def whole(self) -> Prediction:
        """What is kept of the outputs with all bands."""
        return self._kept(self.held_out.inputs)

    @cached_property
    def metric(self) -> str:
        """The figure against labels that the report compares by, or agreement with the network that sees all bands."""
        found = self.held_out.statistics(self.whole, self.whole).of
        known = (name for name in headline_order() if name in found and METRICS[name].higher)
        return next((name for name in known if found[name].value is not None), AGREEMENT)

    def _kept(self, dn: Inputs) -> Prediction:
        return self.ctx.task.keep_logits(np.concatenate([self.run(self.ctx.spec.normalise(one[None])) for one in dn]))

    def figures(self, seen: Bands) -> dict[str, Statistic]:
        """The figures with these bands alone."""
        if seen not in self._figures:
            gone = [i for i in range(self.ctx.spec.channels) if i not in seen]
            kept = self._kept(without(self.held_out.inputs, gone, self.means, self.ctx.spec)) if gone else self.whole
            self._figures[seen] = dict(self.held_out.statistics(kept, self.whole).of)
            self.ctx.reporter.step("bands", len(self._figures), len(self._figures) + 1)
        return self._figures[seen]

    def figure(self, seen: Bands) -> Statistic:
        return self.figures(seen)[self.metric]

    def costs(self, orders: int) -> list[BandCost]:
        """By band: what is lost without it, and its Shapley value where orders are drawn."""
        names, seed = self.ctx.spec.band_names, self.ctx.recipe.seed
        every = frozenset(range(len(names)))
        values, errors = shapley(self.figure, len(names), orders, seed) if orders else ([], [])
        return [
            BandCost(
                band=name,
                loss=estimate(loss_without(self.figure, i, every), seed),
                agreement=estimate(self.figures(every - {i})[AGREEMENT], seed),
                shapley=estimate(values[i], seed) if orders else None,
                orders_se=errors[i] if orders and np.isfinite(errors[i]) else None,
            )
            for i, name in enumerate(names)
        ]

    def removed(self, keep: int) -> tuple[list[Removal], Bands]:
        """Bands taken away one after the other, each time the one that costs least, until ``keep`` are left."""
        names, seed = self.ctx.spec.band_names, self.ctx.recipe.seed
        seen, removals = frozenset(range(len(names))), []
        while len(seen) > keep:
            least = min(sorted(seen), key=lambda i: -_worth(self.figure(seen - {i})))
            seen = seen - {least}
            removals.append(
                Removal(
                    band=names[least], left=len(seen), value=self.figure(seen).value,
                    agreement=self.figures(seen)[AGREEMENT].value,
                    loss=estimate(self._loss_of(seen), seed),
                )
            )  # fmt: skip
        return removals, seen

    def _loss_of(self, seen: Bands) -> Statistic:
        every = frozenset(range(self.ctx.spec.channels))
        return combined([(1.0, self.figure(every)), (-1.0, self.figure(seen))])


def _worth(figure: Statistic) -> float:
    value = figure.value
    return -np.inf if value is None else value


def mean_dn(dn: Inputs, spec: InputSpec) -> npt.NDArray[np.generic]:
    """The mean of each band's valid digital numbers, (C,), rounded as the contract writes them."""
    bands = np.moveaxis(dn, -3 if spec.is_image else -1, 0).astype(np.float64)
    found = []
    for values, band in zip(bands, spec.bands, strict=True):
        valid = np.isfinite(values) & (True if band.nodata is None else values != band.nodata)
        found.append(float(values[valid].mean()) if valid.any() else 0.0)
    kind = np.dtype(spec.dtype).kind
    return np.array(found if kind == "f" else np.rint(found), dtype=spec.dtype)


def without(dn: Inputs, gone: list[int], means: npt.NDArray[np.generic], spec: InputSpec) -> Inputs:
    """Inputs with some bands at their mean wherever they are valid."""
    out = dn.copy()
    bands = np.moveaxis(out, -3 if spec.is_image else -1, 0)
    for i in gone:
        nodata = spec.bands[i].nodata
        bands[i][... if nodata is None else bands[i] != nodata] = means[i]
    return out
