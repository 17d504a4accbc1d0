"""A line of stages, whatever they are of: run in order, each reused where nothing it reads has changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rsedge.cache.stage import StageContext, StageResult, Stages, StageValue
from rsedge.stages.table import Stage

if TYPE_CHECKING:
    from rsedge.reports.schema import Report


class LastStage(Exception):
    """The stage that was to be the last is done."""


class Crowd:
    """Who else works at a line's stages: nobody; :mod:`.together` has more."""

    def begun(self, name: str) -> None:
        """Is called before a stage is made, of those that are made."""

    def done(self, name: str) -> None:
        """Is called when a stage is there."""


class StageLine(ABC):
    """The stages of one run, in order, with what each reads; :class:`LastStage` is raised after ``until``."""

    def __init__(
        self,
        ctx: Any,
        rows: Sequence[Stage],
        names: Sequence[str],
        base: Mapping[str, Any],
        code: Sequence[str],
        force: frozenset[str] = frozenset(),
        until: str | None = None,
    ) -> None:
        """
        Args:
            ctx: what the stages share: ``run``, ``reporter``, ``results``, ``folders``, ``running``.
            rows: those that run.
            names: of all stages of the recipe, by which progress counts.
            base: settings that every stage may read.
            code: modules that every stage's code starts from, beside its own.
        """
        self.ctx, self.rows, self.names, self.base = ctx, list(rows), list(names), dict(base)
        self.code, self.until = code, until
        self.reporter, self.run = ctx.reporter, ctx.run
        self.stages = Stages(ctx.run, force, self.started, self.ended, ctx.results)
        self.crowd = Crowd()

    @abstractmethod
    def report(self, seconds: float) -> Report:
        """Writes the report, and gives it."""

    def run_all(self) -> None:
        for row in self.rows:
            row.take(self.ctx, self._run(row))
            self.taken(row)
            if row.name == self.until:
                raise LastStage

    def _run(self, row: Stage) -> StageResult[StageValue]:
        """Runs a stage."""
        record, body = row.load()
        after = [name for name in row.after if name in self.stages.results]

        def running(context: StageContext) -> StageValue:
            self.ctx.running = row.name
            try:
                return body(context, self.ctx)
            finally:
                self.ctx.running = None

        settings = {**self.base, **row.settings(self.ctx)}
        code = sorted({body.__module__, *self.code})
        return self.stages.stage(record, running, settings, code, after, row.inputs(self.ctx))

    def taken(self, row: Stage) -> None:  # noqa: B027 - most look at nothing
        """Is called when a stage is done and taken over."""

    def started(self, name: str) -> None:
        self.crowd.begun(name)
        self.reporter.note(f"[{self.names.index(name) + 1}/{len(self.names)}] {name}")

    def ended(self, result: StageResult[Any]) -> None:
        self.ctx.folders[result.name] = result.folder
        self.crowd.done(result.name)
        self.reporter.clear()
        position = f"[{self.names.index(result.name) + 1}/{len(self.names)}] {result.name}"
        self.reporter.note(f"{position}: reused" if result.reused else f"  done in {result.seconds:.0f} s")
        for text in result.value.remarks:
            self.reporter.note(f"  warning: {text}")
